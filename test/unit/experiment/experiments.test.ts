import { expect } from "chai";
import { findBlock } from "../../../src/blocks.js";
import { schemaOf } from "../../../src/experiment/choice.js";
import { completeConfig, presentNames, presetsOf } from "../../../src/experiment/config.js";
import type { Experiment, Task } from "../../../src/experiment/define.js";
import { flagsOf } from "../../../src/experiment/flags.js";
import { builtinExperiments, loadExperiment } from "../../../src/experiment/load.js";

describe("our experiments", () => {
  const all: { experiment: Experiment; task: Task; called: string }[] = [];
  before(async () => {
    for (const { path } of builtinExperiments()) {
      const experiment = await loadExperiment(path);
      for (const task of Object.values(experiment.tasks))
        all.push({ experiment, task, called: `${experiment.name} --task ${task.name}` });
    }
  });

  it("are the ones that the package names, each a set of tasks", () => {
    const names = new Set(all.map(({ experiment }) => experiment.name));
    expect([...names].sort()).to.deep.equal(
      builtinExperiments()
        .map(({ name }) => name)
        .sort(),
    );
    for (const { experiment } of all) expect(experiment.former).to.equal(false);
  });

  it("have one flag of a name, and a description for each that help lists", () => {
    for (const { task, called } of all) {
      const flags = flagsOf(task);
      const names = flags.map(({ name }) => name);
      expect(names, called).to.deep.equal([...new Set(names)]);
      for (const { name, option, hidden } of flags)
        if (!hidden) expect(option.description, `${called} --${name}`).to.not.equal("");
    }
  });

  it("name parameters and kinds that there are", () => {
    let seen = 0;
    for (const { task, called } of all)
      for (const choice of task.choices)
        for (const [param, { kinds = choice.kinds }] of choice.flags) {
          for (const kind of kinds)
            expect(findBlock(choice.type, kind).kind, `${called}: ${param}`).to.equal(kind);
          if (!choice.params.has(param)) continue; // another experiment's network has it
          expect(schemaOf(choice, param).description, `${called}: ${param}`).to.not.equal("");
          seen++;
        }
    expect(seen).to.be.greaterThan(50);
  });

  it("have presets whose every value counts, and defaults that the catalogue accepts", () => {
    for (const { experiment, task, called } of all)
      for (const preset of [undefined, ...Object.keys(presetsOf(task))]) {
        const { config } = completeConfig(experiment, { task: task.name }, { preset });
        for (const [field, value] of Object.entries(presetsOf(task)[preset ?? ""] ?? {}))
          expect(config, `${called} --preset ${preset}`).to.include({ [field]: value });
      }
  });

  it("can have every kind of block that they offer, complete", () => {
    let seen = 0;
    for (const { experiment, task } of all)
      for (const { name, kinds, params, type, fallback } of task.choices)
        for (const kind of fallback === undefined ? [] : kinds) {
          const { config } = completeConfig(experiment, { task: task.name, [name]: kind });
          const { properties = {} } = findBlock(type, kind).entry.params;
          for (const param of Object.keys(properties))
            if (params.has(param) && properties[param]!.default !== undefined)
              expect(config).to.have.property(`${name}.${param}`);
          seen++;
        }
    expect(seen).to.be.greaterThan(20);
  });

  it("give a run again from its recorded config", () => {
    for (const { experiment, task } of all) {
      const { config } = completeConfig(experiment, { task: task.name });
      const recorded = JSON.parse(JSON.stringify({ task: task.name, ...config }));
      const again = completeConfig(experiment, recorded, { recorded: true });
      expect(JSON.stringify(again.config)).to.equal(JSON.stringify(config));
      expect(again.task).to.equal(task);
    }
  });

  it("have no former name that is a present one", () => {
    for (const { task, called } of all)
      for (const [former, field] of presentNames(task))
        if (Object.hasOwn(task.config, former)) expect(former, called).to.equal(field);
  });
});
