/** Analysis of discovered symmetries: names (METHOD 4.2), structure (4.3) and components (4.4). */
export { analyseAlgebra, analyseCosets, analyseGroup } from "./analyse.js";
export { catalogue, type NamedAlgebra, namedAlgebra, namedAlgebras } from "./catalogue.js";
export {
  describeComponent,
  distanceToIdentityComponent,
  type GroupComponent,
} from "./components.js";
export { describeResult, formatMatrix } from "./describe.js";
export type { Factor, Frame } from "./factors.js";
export {
  abstractName,
  type GroupName,
  type MultiplicationTable,
  multiplicationTable,
  nameComponentGroup,
  nameFiniteGroup,
} from "./finite.js";
export { type Identification, identify } from "./identify.js";
export type { Interval } from "./interval.js";
export { expm, logm, type SquareMatrix } from "./linalg.js";
export { exactAlgebra } from "./products.js";
export { axisSpread, type Turn, turnOf } from "./rotations.js";
export {
  bracket,
  closure,
  frame,
  grassmannDistance,
  type InvariantMetric,
  invariantMetric,
  keepingMetric,
  killingForm,
  killingSignature,
  metricCosine,
  principalAngles,
  readableBasis,
  type Signature,
  structureConstants,
} from "./span.js";
export { meanInterval, ratioInterval } from "./student.js";
