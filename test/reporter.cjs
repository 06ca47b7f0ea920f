/** Mocha's list of tests, and after it the ten that took longest. */
const { reporters, Runner } = require("mocha");

module.exports = class extends reporters.Spec {
  constructor(
    /** @type {import("mocha").Runner} */ runner,
    /** @type {import("mocha").MochaOptions} */ options,
  ) {
    super(runner, options);
    /** @type {[ms: number, title: string][]} */
    const taken = [];
    const note = (/** @type {import("mocha").Test} */ test) =>
      void taken.push([test.duration ?? 0, test.fullTitle()]);
    const { EVENT_TEST_PASS, EVENT_TEST_FAIL, EVENT_RUN_END } = Runner.constants;
    runner.on(EVENT_TEST_PASS, note).on(EVENT_TEST_FAIL, note);
    runner.on(EVENT_RUN_END, () => {
      const slowest = taken.sort(([a], [b]) => b - a).slice(0, 10);
      if (taken.length <= slowest.length) return;
      reporters.Base.consoleLog("  the ten slowest tests\n");
      for (const [ms, title] of slowest)
        reporters.Base.consoleLog(`  ${(ms / 1000).toFixed(1).padStart(7)} s  ${title}`);
      reporters.Base.consoleLog("");
    });
  }
};
