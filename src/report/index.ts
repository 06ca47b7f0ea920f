/** The HTML report of a run. */
export { type Charts, drawPictures, type Illustration, illustrate, type Picture } from "./illustration.js";
export type { Classes } from "./raster.js";
export { type ReportParts, renderReport } from "./render.js";
