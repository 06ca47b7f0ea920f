/** Solvers of a session for Lie algebras and components, and the comparison of components. */
import type { Block } from "../../blocks.js";
import {
  CosetOutcome,
  type CreateObjectRequest,
  ObjectServiceService,
} from "../../gen/atlas/v1/objects.js";
import { AlgebraMeasured, CosetsMeasured, GroupMeasured } from "../../result.js";
import { Tensor } from "../../tensor/tensor.js";
import { type Link, LONG_READ, type Matrices } from "./link.js";
import { type RemoteObject, wireBlock } from "./objects.js";

interface SolverOptions {
  dataset: RemoteObject;
  atlas: RemoteObject;
  epochs: number;
  seed: number;
}

/** A solver for the Lie algebra, and what it works on. */
export interface AlgebraOptions extends SolverOptions {
  solver: Block<"algebra_solver"> | Block<"data_solver">;
  /** The predictor; left out for a solver that looks at the data alone. */
  predictor?: RemoteObject;
  /** Number of generators; left out (or "auto", or 0), the solver decides. */
  k?: number | "auto";
  /** Basis of the algebra to which the search is restricted, [d, n, n]. */
  groupAlgebra?: Matrices;
}

/** A solver for the components, and what it works on. */
export interface CosetsOptions extends SolverOptions {
  /** A search, or a closure of `matrices`. */
  solver: Block<"coset_solver"> | Block<"closure_solver">;
  predictor: RemoteObject;
  /** Basis of the identity component's Lie algebra, [k, n, n]; k may be 0. */
  identityAlgebra: Matrices;
  /** Basis of an algebra, [d, n, n], in whose normaliser the components are sought. */
  groupAlgebra?: Matrices;
  /** The matrices that a closure starts from, [m, n, n]; left out for a search. */
  matrices?: Matrices;
}

/** Which matrices are in the same component of a group. */
export interface ComponentFindings {
  /** Number of each matrix's component, in order of first appearance. */
  component: number[];
  /** [m, m], mean squared distance of M_i M_j⁻¹ from the identity component. */
  residuals: number[][];
}

/** Make the spec of a solver for the Lie algebra. */
export async function algebraSpec(
  link: Link,
  { solver, k, groupAlgebra, ...options }: AlgebraOptions,
): Promise<CreateObjectRequest["spec"]> {
  const type = options.predictor ? "algebra_solver" : "data_solver";
  const block = wireBlock(type, solver as Block<typeof type>);
  const wanted = k === "auto" || k === 0 ? undefined : k;
  const group = groupAlgebra && (await link.send(Tensor.from(groupAlgebra)));
  const algebra = { solver: block, k: wanted, groupAlgebra: group, ...handles(options) };
  return { $case: "algebra", algebra };
}

/** Make the spec of a solver for the components. */
export async function cosetsSpec(
  link: Link,
  { solver, identityAlgebra, groupAlgebra, matrices, predictor, ...options }: CosetsOptions,
): Promise<CreateObjectRequest["spec"]> {
  const type = matrices ? "closure_solver" : "coset_solver";
  const cosets = {
    solver: wireBlock(type, solver as Block<typeof type>),
    identityAlgebra: await link.sendMatrices(identityAlgebra),
    groupAlgebra: groupAlgebra && (await link.send(Tensor.from(groupAlgebra))),
    matrices: matrices && (await link.sendMatrices(matrices)),
    ...handles(options),
    predictor: predictor.handle,
  };
  return { $case: "cosets", cosets };
}

/** Get the findings of a solver for the Lie algebra. */
export async function getAlgebra(link: Link, { handle }: RemoteObject): Promise<AlgebraMeasured> {
  const request = { sessionId: link.id, handle };
  const response = await link.call(ObjectServiceService.getAlgebra, request, LONG_READ);
  return AlgebraMeasured.parse(withoutEmpty(await link.decode(response)));
}

/** Get the findings of a solver for the components. */
export async function getCosets(link: Link, { handle }: RemoteObject): Promise<CosetsMeasured> {
  const request = { sessionId: link.id, handle };
  const response = await link.call(ObjectServiceService.getCosets, request, LONG_READ);
  const candidates = response.candidates.map((candidate) => ({
    ...candidate,
    outcome: CosetOutcome[candidate.outcome].replace("COSET_OUTCOME_", "").toLowerCase(),
  }));
  return CosetsMeasured.parse(withoutEmpty(await link.decode({ ...response, candidates })));
}

/** Leave out `factors`, `coordinates` and counts of directions if the worker sent none. */
function withoutEmpty(message: unknown): unknown {
  const { factors, coordinates, freeDirections, leadingOut, inertDirections, ...rest } =
    message as {
      factors: unknown[];
      coordinates?: unknown;
      freeDirections?: number;
      leadingOut?: number;
      inertDirections?: number;
    };
  return {
    ...rest,
    ...(freeDirections && { freeDirections }),
    ...(leadingOut && { leadingOut }),
    ...(inertDirections && { inertDirections }),
    ...(factors.length > 0 && { factors }),
    ...(coordinates !== undefined && { coordinates }),
  };
}

/** Get the findings of a closure. */
export async function getClosure(link: Link, { handle }: RemoteObject): Promise<GroupMeasured> {
  const request = { sessionId: link.id, handle };
  const response = await link.call(ObjectServiceService.getCosets, request, LONG_READ);
  const { closure, ...found } = (await link.decode(response)) as { closure?: object };
  return GroupMeasured.parse({ ...(withoutEmpty(found) as object), ...closure });
}

/** Find which matrices are in the same component of a group. */
export async function compareComponents(
  link: Link,
  basis: Matrices,
  group: Matrices,
): Promise<ComponentFindings> {
  if (group.length === 0) return { component: [], residuals: [] };
  const request = {
    basis: await link.sendMatrices(basis),
    matrices: await link.send(Tensor.from(group)),
  };
  const { component, residuals } = await link.call(
    ObjectServiceService.compareComponents,
    request,
    LONG_READ,
  );
  return { component, residuals: (await link.fetch(residuals)).toMatrix() };
}

function handles({
  predictor,
  dataset,
  atlas,
  ...numbers
}: SolverOptions & { predictor?: RemoteObject }) {
  return { predictor: predictor?.handle, dataset: dataset.handle, atlas: atlas.handle, ...numbers };
}
