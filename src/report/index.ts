/** The HTML report of a run. */
export {
  type Charts,
  drawPictures,
  type Illustration,
  type Picture,
  type PlanarCharts,
  type SphereCharts,
} from "./illustration.js";
export type { Classes } from "./raster.js";
export { type ReportParts, renderReport } from "./render.js";
