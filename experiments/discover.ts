/** Symmetries of your own data, or of a predictor of your own: a program, or a PyTorch module. */
import { defineExperiment, ownTasks } from "../src/index.js";

export default defineExperiment({
  name: "discover",
  summary: "Symmetries of your own data, or of a predictor of your own",
  examples: [
    "atlas discover --inputs inputs.npy --targets targets.npy",
    "atlas discover --inputs wind.npy --inputs-as V --targets flow.npy --targets-as V",
    "atlas discover --inputs orbits.npy --axes n,t,features --predict next --inputs-as 4V",
    "atlas discover --inputs points.npy",
    "atlas discover --predictor net.py:load --trust-code --inputs jets.npy --classifier",
  ],
  tasks: ownTasks,
});
