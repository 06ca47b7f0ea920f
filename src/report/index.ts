/** The HTML report of a run. */

export { type Compared, renderComparison } from "./compare.js";
export { renderFragment } from "./fragment.js";
export {
  type Charts,
  drawPictures,
  type Illustration,
  type Picture,
  type PlanarCharts,
  type SphereCharts,
} from "./illustration.js";
export {
  drawMotions,
  type MotionIllustration,
  type MotionPanel,
  type MotionPicture,
} from "./motion.js";
export type { Colour, Raster } from "./png.js";
export type { Classes } from "./raster.js";
export { picturesOf, type ReportParts, renderReport } from "./render.js";
