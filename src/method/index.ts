/** The steps of the method, which experiments share. */
export * from "./algebra.js";
export * from "./benchmark.js";
export * from "./charts.js";
export * from "./components.js";
export * from "./data.js";
export * from "./discovery.js";
export * from "./distribution.js";
export * from "./downstream.js";
export * from "./evidence.js";
export * from "./files.js";
export * from "./group.js";
export * from "./grow.js";
export * from "./own.js";
export * from "./predictor.js";
export * from "./rotations.js";
export * from "./trajectories.js";
export * from "./verdict.js";
