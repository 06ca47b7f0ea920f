/** The HTML report of a run. */
export { drawPictures, type Illustration, illustrate, type Picture } from "./illustration.js";
export { type ReportParts, renderReport } from "./render.js";
