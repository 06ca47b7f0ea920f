/** `atlas dashboard`: serve a live page of all runs on this machine. */
import { spawn } from "node:child_process";
import { access, constants, stat } from "node:fs/promises";
import { type Command, InvalidArgumentError } from "commander";
import { UsageError } from "../errors.js";
import type { Progress } from "../experiment/progress.js";
import { childEnvironment } from "../setup/environment.mjs";
import { addCommonOptions, type CommonOptions, commonOptions } from "./options.js";
import { namingFlag } from "./remedy.js";

/** Milliseconds for which open pages may still ask about a run that has ended. */
const LINGER_MS = 3000;

/** Add the command to `program`. */
export function register(program: Command): void {
  const command = program
    .command("dashboard")
    .description("Show all runs on a live page, also those of other processes")
    .option("--port <number>", "Port on this machine (default: 8137, or a free one)", portOf)
    .option("--open", "Open the page in the browser");
  addCommonOptions(command, ["runs", "debug"])
    .addHelpText(
      "after",
      `
The page is for you alone: it listens on 127.0.0.1, and its address has a token.
From another machine: ssh -L 8137:127.0.0.1:8137 HOST

Examples:
  atlas dashboard
  atlas dashboard --runs /data/runs --port 9000 --open`,
    )
    .action(async () => {
      const { runs } = commonOptions(command);
      const { port, open } = command.opts<{ port?: number; open?: boolean }>();
      await namingFlag("--runs DIR", () => checkFolder(runs));
      const { serveDashboard } = await import("../dashboard/index.js");
      const dashboard = await serveDashboard({ runs, port });
      process.stdout.write(`dashboard  ${dashboard.url}\n`);
      process.stderr.write("stop it with Ctrl-C\n");
      if (open === true) openPage(dashboard.url);
      await new Promise<void>((resolve) => {
        process.once("SIGINT", resolve).once("SIGTERM", resolve);
      });
      await dashboard.close();
    });
}

/**
 * Do a run, and show it on a page if the user asked for one. A page that cannot be served does not
 * stop the run.
 */
export async function withDashboard<T>(
  { dashboard: wanted, runs }: Pick<CommonOptions, "dashboard" | "runs">,
  progress: Pick<Progress, "info" | "warn">,
  work: () => Promise<T>,
): Promise<T> {
  if (!wanted) return work();
  const { serveDashboard } = await import("../dashboard/index.js");
  const dashboard = await serveDashboard({ runs }).catch((error: unknown) => {
    const why = error instanceof Error ? error.message : String(error);
    return void progress.warn(`there is no dashboard: ${why}`);
  });
  if (dashboard) progress.info(`dashboard ${dashboard.url}`);
  try {
    return await work();
  } finally {
    await dashboard?.close(LINGER_MS).catch(() => undefined);
  }
}

/** @throws UsageError if runs cannot be listed there. A folder may come later. */
async function checkFolder(runs: string): Promise<void> {
  const about = await stat(runs).catch((error: NodeJS.ErrnoException) => error.code);
  if (about === "ENOENT") return;
  if (typeof about === "object" && !about.isDirectory())
    throw new UsageError(`${runs} is not a folder`, "choose another folder", { elsewhere: true });
  const denied = await access(runs, constants.R_OK | constants.X_OK).then(
    () => false,
    () => true,
  );
  if (typeof about === "string" || denied)
    throw new UsageError(`the folder of runs ${runs} cannot be read`, "choose another folder", {
      elsewhere: true,
    });
}

function portOf(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65535)
    throw new InvalidArgumentError("Give a number from 0 to 65535, where 0 is a free port.");
  return port;
}

/** Open a page in the user's browser. The address is printed, so a failure is no matter. */
export function openPage(url: string): void {
  const [program, ...first] =
    process.platform === "darwin"
      ? ["open"]
      : process.platform === "win32"
        ? ["cmd", "/c", "start", ""]
        : ["xdg-open"];
  const child = spawn(program!, [...first, url], {
    env: childEnvironment(undefined, { forUser: true }),
    detached: true,
    stdio: "ignore",
  });
  child.on("error", () => process.stderr.write("warning: no browser could be opened\n"));
  child.unref();
}
