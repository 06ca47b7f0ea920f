import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { z } from "zod";
import { SetupError, UsageError, WorkerUnavailable } from "../../../src/errors.js";
import { defineExperiment, task } from "../../../src/experiment/define.js";
import { Progress } from "../../../src/experiment/progress.js";
import { resumeExperiment, runExperiment } from "../../../src/experiment/runner.js";
import {
  type ContainerOptions,
  parseContainer,
  startContainerWorker,
} from "../../../src/worker/container.js";
import type { LocalProcess } from "../../../src/worker/local.js";
import { fakePython, type Mode } from "./fake-process.js";
import { rejection } from "./rejection.js";

describe("worker in a container", () => {
  let dir: string;
  const { PATH } = process.env;
  const started: { close(): Promise<void> }[] = [];
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "atlas-container-"));
    process.env.PATH = dir;
  });
  afterEach(async () => {
    await Promise.all(started.splice(0).map((p) => p.close()));
    process.env.PATH = PATH;
    rmSync(dir, { recursive: true, force: true });
  });

  /**
   * Put an engine on the PATH that knows `images`, writes down how it is called, and whose
   * containers are fake workers.
   */
  function engine(
    name: "docker" | "podman",
    { images = [] as string[], mode = "obedient" as Mode, say = "" } = {},
  ) {
    const python = fakePython(join(dir, "python"), mode);
    const known = join(dir, "images");
    mkdirSync(known);
    for (const image of images) writeFileSync(join(known, image.replaceAll("/", "+")), "");
    const body = `
printf '%s\\n' "$*" >> '${dir}/calls'
PATH='${PATH}'
file() { echo "${known}/$(echo "$1" | tr / +)"; }
case "$1" in
  version) echo '${say}' ;;
  image) [ -e "$(file "$3")" ] ;;
  build) echo step 1; while [ "$1" != --tag ]; do shift; done; touch "$(file "$2")" ;;
  pull) echo "denied: $2"; exit 1 ;;
  run) env > '${dir}/env'; exec '${python}' serve --parent-stdin ;;
esac`;
    writeFileSync(join(dir, name), `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  }
  const calls = () => readFileSync(join(dir, "calls"), "utf8").trim().split("\n");
  const run = () => calls().find((c) => c.startsWith("run "))!;
  async function start(options: ContainerOptions = {}): Promise<LocalProcess> {
    const worker = await startContainerWorker({ device: "cpu", ...options });
    started.push(worker);
    return worker;
  }

  it("is started from an image that is there, and removed", async () => {
    engine("docker", { images: ["mine/worker:1"] });
    const { token, close } = await start({
      image: "mine/worker:1",
      files: ['/data/a "b", c'],
      threads: 3,
    });
    expect(calls()[1]).to.equal("image inspect mine/worker:1");
    expect(run().split(" mine/worker:1 ")[1]).to.equal(
      "serve --listen 127.0.0.1:0 --device cpu --threads 3 --data-root / --parent-stdin",
    );
    expect(run()).to.contain(
      '--mount type=bind,"source=/data/a ""b"", c","target=/data/a ""b"", c",readonly ',
    );
    expect(run(), "no GPU").to.not.contain("--gpus");
    expect(run(), "what everyone can read")
      .to.contain("--env ATLAS_TOKEN ")
      .and.to.not.contain(token);
    expect(readFileSync(join(dir, "env"), "utf8")).to.contain(`ATLAS_TOKEN=${token}`);
    await close();
    const [, name] = / --name (\S+) /.exec(run())!;
    expect(calls().at(-1)).to.equal(`rm --force ${name}`);
  });

  it("is removed also when it dies", async () => {
    engine("docker", { images: ["w"], mode: "dying" });
    const worker = await start({ image: "w" });
    process.kill(worker.pid, "SIGKILL");
    await new Promise((resolve) => worker.gone.addEventListener("abort", resolve));
    expect((worker.gone.reason as Error).message).to.contain("container");
    await worker.close();
    expect(calls().at(-1)).to.match(/^rm --force atlas-/);
  });

  it("has its image built once, with what the environment asks for", async () => {
    engine("docker");
    process.env.ATLAS_BASE = "debian:13";
    const lines: string[] = [];
    try {
      await start({ onSetup: (line) => lines.push(line) });
      await start({ onSetup: (line) => lines.push(line) });
    } finally {
      delete process.env.ATLAS_BASE;
    }
    const builds = calls().filter((c) => c.startsWith("build "));
    expect(builds).to.have.length(1);
    const [, file, tag] =
      /^build --file (\S+) --tag (atlas-symmetry-worker:\S+) --build-arg BASE=debian:13 /.exec(
        builds[0]!,
      )!;
    expect(existsSync(file!)).to.equal(true);
    expect(run()).to.contain(` ${tag} serve `);
    expect(lines).to.have.length(2);
    expect(lines[1]).to.equal("  step 1");
    await start();
    expect(
      calls().filter((c) => c.startsWith("build ")),
      "another base is another image",
    ).to.have.length(2);
  });

  it("gets a GPU as its engine hands them out", async () => {
    engine("docker", { images: ["w"], say: "Podman Engine" });
    await start({ image: "w", device: "cuda:0" });
    expect(run()).to.contain(" --device nvidia.com/gpu=all ").and.to.not.contain("--gpus");
  });

  it("computes for a run, and sees the files that its config names", async () => {
    engine("podman", { images: ["w"] });
    const experiment = defineExperiment({
      name: "reader",
      summary: "Reads",
      tasks: {
        read: task({
          summary: "Read",
          config: {
            data: z.string().default(dir).meta({ file: true }),
            absent: z.string().default("/no/such/file").meta({ file: true }),
            title: z.string().default(tmpdir()), // only text, though there is such a folder
          },
          run: async () => {
            throw new Error("far enough"); // and the run is kept
          },
        }),
      },
    });
    const options = { runs: join(dir, "runs"), progress: new Progress({ quiet: true }) };
    const worker = { address: "docker:w", device: "cpu" };
    const error = await rejection(runExperiment(experiment, {}, { ...options, worker }));
    expect(error.message).to.equal("far enough");
    expect(run().match(/--mount \S+/g)).to.deep.equal([
      `--mount type=bind,"source=${dir}","target=${dir}",readonly`,
    ]);
    expect(calls().at(-1)).to.match(/^rm --force atlas-/);
    // To go on is another matter: the run may be a stranger's, and the image too.
    const path = join(dir, "runs", readdirSync(join(dir, "runs"))[0]!);
    const before = calls().length;
    const { progress } = options;
    const refused = (await rejection(
      resumeExperiment(experiment, path, { progress }),
    )) as UsageError;
    expect(`${refused.message}; ${refused.remedy}`).to.match(
      /^the run names the worker docker:w, an image that would be executed; .*--trust-code$/,
    );
    expect(calls()).to.have.length(before);
    for (const choice of [{ trustCode: true }, { worker }])
      expect(
        (await rejection(resumeExperiment(experiment, path, { progress, ...choice }))).message,
      ).to.equal("far enough");
  });

  it("is not to be had without an engine, or with one that does not run", async () => {
    const none = await rejection(start());
    expect(none).to.be.instanceOf(SetupError);
    expect(none.message).to.contain("docker").and.contain("podman");
    writeFileSync(
      join(dir, "docker"),
      "#!/bin/sh\necho Client; echo 'Is the daemon running?' >&2; exit 1\n",
      { mode: 0o755 },
    );
    const idle = await rejection(start());
    expect(idle.message).to.contain("docker").and.contain("Is the daemon running?");
  });

  it("says what the engine says when there is no image, or no container", async () => {
    engine("docker", { images: ["w"] });
    const absent = await rejection(start({ image: "nobody/nothing" }));
    expect(absent).to.be.instanceOf(SetupError);
    expect(absent.message).to.match(/docker .* nobody\/nothing .*denied: nobody\/nothing/);
    writeFileSync(
      join(dir, "docker"),
      [
        "#!/bin/sh",
        '[ "$1" = run ] || exit 0',
        'echo "docker: Error: no such device" >&2',
        "echo \"Run 'docker run --help' for more information\" >&2",
        "exit 125\n",
      ].join("\n"),
    );
    const failed = await rejection(start({ image: "w" }));
    expect(failed).to.be.instanceOf(WorkerUnavailable);
    expect(failed.message).to.match(/container .*\b125\b.*: docker: Error: no such device$/);
  });

  it("stops building when told to", async () => {
    engine("docker");
    const controller = new AbortController();
    const reason = new Error("Ctrl-C");
    const onSetup = () => controller.abort(reason);
    expect(await rejection(start({ onSetup, signal: controller.signal }))).to.equal(reason);
    expect(calls().some((c) => c.startsWith("run "))).to.equal(false);
  });

  it("takes names that images can have", () => {
    expect(parseContainer("docker")).to.deep.equal({});
    expect(parseContainer("docker:host:5000/a/b:1@sha256:0f")).to.deep.equal({
      image: "host:5000/a/b:1@sha256:0f",
    });
    expect(parseContainer("local")).to.equal(undefined);
    for (const name of ["docker:", "docker:--privileged", "docker:a b"])
      expect(() => parseContainer(name), name).to.throw(UsageError);
  });
});
