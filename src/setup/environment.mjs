/**
 * The environment of the programs that Atlas starts: Python, pip, Node, npm, git, container engines.
 *
 * The user's shell says *where things come from*: indexes, registries, proxies, certificates,
 * credentials, caches, PATH, locale, LD_PRELOAD, DOCKER_HOST. That is kept. It does not say *where
 * things go*, *which things run*, or *how the answer is written*: such variables are dropped here,
 * and settings in files of the user are overruled. Plain Node.
 */
import { devNull } from "node:os";
import { basename, join } from "node:path";

/** Settings of npm that decide what it installs, and where, or what it prints. */
const NPM_DROPPED = [
  "also before bin_links call cpu dev dry_run engine_strict expect_\\w+ force global",
  "global_style help if_present include include_workspace_root install_links",
  "install_strategy json legacy_bundling legacy_peer_deps libc link local_prefix location",
  "lockfile_version loglevel long min_release_age\\w* omit only optional os package_lock",
  "package_lock_only parseable prefer_dedupe production quiet save\\w* shrinkwrap silent",
  "strict_peer_deps usage version versions workspaces?",
].flatMap((line) => line.split(" "));

/** Variables that git sets for hooks, and others that choose a repository. */
const GIT_DROPPED = [
  "DIR WORK_TREE IMPLICIT_WORK_TREE INDEX_FILE INDEX_VERSION OBJECT_DIRECTORY PREFIX",
  "ALTERNATE_OBJECT_DIRECTORIES COMMON_DIR NAMESPACE SHALLOW_FILE GRAFT_FILE CONFIG",
  "CONFIG_PARAMETERS INTERNAL_SUPER_PREFIX NO_REPLACE_OBJECTS REPLACE_REF_BASE",
].flatMap((line) => line.split(" "));

/**
 * Variables that no child gets, as [pattern, what they would decide]. Names of npm's settings are
 * compared in lower case with underscores.
 *
 * @type {readonly (readonly [RegExp, string])[]}
 */
export const DROPPED = [
  [
    /^PYTHON(?!(DONTWRITEBYTECODE|PYCACHEPREFIX|UNBUFFERED|FAULTHANDLER|_KEYRING_\w+)?$)/,
    "which modules a Python has, how it runs, what it writes",
  ],
  [/^(__PYVENV_LAUNCHER__|VIRTUAL_ENV|VIRTUAL_ENV_PROMPT)$/, "which Python a venv is of"],
  [/^_PIP_/, "how pip runs itself"],
  [/^(PYTEST_\w+|MYPY\w*|RUFF_\w+|MOCHA_OPTIONS|BIOME_\w+)$/, "what tests and checks do"],
  [
    /^(NODE_ENV|NODE_PATH|NODE_PRESERVE_SYMLINKS\w*|NODE_PENDING_DEPRECATION|NODE_TEST_CONTEXT)$/,
    "which modules Node takes",
  ],
  [/^DEBUG$/, "whether Node's packages write what they do beside their answers"],
  [/^(TSX_TSCONFIG_PATH|ESBUILD_BINARY_PATH)$/, "how TypeScript is compiled"],
  [new RegExp(`^npm_config_(${NPM_DROPPED.join("|")})$`), "what npm installs, and where"],
  [new RegExp(`^GIT_(${GIT_DROPPED.join("|")})$`), "which repository git reads, as in a hook"],
  [/^GIT_(EXTERNAL_DIFF|DIFF_OPTS|\w+_PATHSPECS|TRACE\w*|CURL_VERBOSE)$/, "what git answers"],
  [/^(DOCKER_DEFAULT_PLATFORM|PODMAN_USERNS|BUILDAH_FORMAT)$/, "what a container is"],
];

/** Variables that would put colours into an answer that a program reads. */
const COLOURS = /^(FORCE_COLOR|CLICOLOR_FORCE|PY_COLORS)$/;

/** Variables that every child gets. */
const SET = {
  PYTHONUTF8: "1", // names of files are UTF-8 in all parts of Atlas, whatever the locale
  PYTHONIOENCODING: "utf-8", // older releases read PYTHONUTF8 only at the start of the interpreter
  PYTHONNOUSERSITE: "1",
  BUILDKIT_PROGRESS: "plain",
};

/** Options in NODE_OPTIONS that children get: memory, certificates, the network, warnings. */
const NODE_OPTION =
  /^--(max-|stack-|use-|no-warnings|disable-warning|tls-|openssl|enable-fips|force-fips|secure-heap|dns-|network-|enable-network|no-network)/;

/** The registry of Yarn 1, which Yarn sets for programs that it starts unless the user chose one. */
const YARN_REGISTRY = /^https?:\/\/registry\.yarnpkg\.com\/?$/;

/**
 * Make the environment of a child.
 *
 * @param {NodeJS.ProcessEnv} [more] variables that it gets beside or in place of the user's
 * @param {object} [options]
 * @param {NodeJS.ProcessEnv} [options.from] the user's environment
 * @param {boolean} [options.forUser] whether the user reads its output, and not a program
 * @returns {NodeJS.ProcessEnv} all of it
 */
export function childEnvironment(more = {}, { from = process.env, forUser = false } = {}) {
  /** @type {NodeJS.ProcessEnv} */
  const env = {};
  for (const [name, value] of Object.entries(from)) {
    if (isDropped(name) || (!forUser && COLOURS.test(name))) continue;
    if (npmName(name) === "npm_config_registry" && YARN_REGISTRY.test(value ?? "")) continue;
    env[name] = value;
  }
  const options = nodeOptions(from.NODE_OPTIONS ?? "");
  if (options === "") delete env.NODE_OPTIONS;
  else env.NODE_OPTIONS = options;
  // Python and curl take authorities from this file. Node adds those of one file to its own.
  if (!env.NODE_EXTRA_CA_CERTS && env.SSL_CERT_FILE) env.NODE_EXTRA_CA_CERTS = env.SSL_CERT_FILE;
  return { ...env, ...SET, ...(forUser ? {} : { NO_COLOR: "1" }), ...more };
}

/** Whether children do not get a variable. @param {string} name */
export function isDropped(name) {
  return DROPPED.some(([pattern]) => pattern.test(npmName(name)));
}

/** Write the name of a setting of npm in one way; leave other names as they are. @param {string} name */
function npmName(name) {
  return /^npm_config_\w/i.test(name) ? name.toLowerCase().replaceAll("-", "_") : name;
}

/** Keep the {@link NODE_OPTION}s, with their values. @param {string} text */
function nodeOptions(text) {
  const words = text.match(/(?:"(?:\\.|[^"\\])*"|[^\s"])+/g) ?? [];
  let kept = false;
  return words
    .filter((word) => {
      if (word.startsWith("-")) kept = NODE_OPTION.test(word.replaceAll("_", "-"));
      return kept; // a word without a dash is the value of the option before it
    })
    .join(" ");
}

/**
 * Options of npm that overrule `.npmrc` files of the user. "include" is stronger than "omit",
 * "only" and "production".
 */
export const NPM_OPTIONS = [
  ...["dev", "optional", "peer"].map((kind) => `--include=${kind}`),
  "--global=false",
  "--location=project",
  "--dry-run=false",
  "--package-lock=true",
  "--package-lock-only=false",
  "--install-strategy=hoisted",
  "--install-links=false",
  "--legacy-peer-deps=false",
  "--strict-peer-deps=false",
  "--engine-strict=false",
  "--before=null",
  `--os=${process.platform}`,
  `--cpu=${process.arch}`,
  "--json=false",
  "--color=false",
  "--progress=false",
  "--loglevel=error",
  "--audit=false",
  "--fund=false",
];

/**
 * Get the command that runs npm. Under another package manager, npm_execpath names that.
 *
 * @param {NodeJS.ProcessEnv} [env]
 * @returns {[command: string, ...first: string[]]}
 */
export function npmCommand(env = process.env) {
  const path = env.npm_execpath ?? "";
  if (basename(path) === "npm-cli.js") return [process.execPath, path];
  if (basename(path) === "npx-cli.js") return [process.execPath, join(path, "..", "npm-cli.js")];
  return ["npm"];
}

/** Arguments of a Python that Atlas sets up: it looks only at itself, and not into this folder. */
export const ISOLATED = ["-I", "-X", "utf8"];

/**
 * Settings of pip that say where packages come from. All others are left to Atlas, whether they are
 * in variables or in files: user, target, prefix, root, src, platform, python, dry-run, report, log,
 * requirement, constraint, editable, no-deps, pre, upgrade, no-binary, require-hashes, quiet …
 */
const PIP_KEPT =
  /^(index-url|pypi-url|extra-index-url|no-index|find-links|trusted-host|cert|client-cert|proxy|(default-)?timeout|retries|resume-retries|keyring-provider|cache-dir|no-cache-dir|use-feature|use-deprecated|only-binary|prefer-binary)$/;

/** Sections of pip's settings that count for an installation, the strongest last. */
const PIP_SECTIONS = ["global", "install", ":env:"];

/**
 * Make the environment in which pip lists its settings, so that no setting hides any.
 *
 * @param {string} python
 * @param {NodeJS.ProcessEnv} [from] the user's environment
 */
export function pipListEnvironment(python, from = process.env) {
  const all = { PIP_USER: "0", PIP_GLOBAL: "0", PIP_SITE: "0" }; // here: only that one's settings
  const whole = { PIP_QUIET: "0", PIP_LOG: devNull, PIP_PYTHON: python };
  return childEnvironment({ ...all, ...whole }, { from });
}

/**
 * Make the environment of `pip install`.
 *
 * @param {readonly string[]} settings lines of `pip config list`
 * @param {NodeJS.ProcessEnv} [from] the user's environment
 */
export function pipEnvironment(settings, from = process.env) {
  const env = childEnvironment({}, { from });
  for (const name of Object.keys(env)) if (name.startsWith("PIP_")) delete env[name];
  for (const section of PIP_SECTIONS)
    for (const line of settings) {
      const [, of, name = "", value = ""] = /^(:env:|\w+)\.([\w-]+)=(['"].*['"])$/.exec(line) ?? [];
      if (of === section && PIP_KEPT.test(name))
        env[`PIP_${name.toUpperCase().replaceAll("-", "_")}`] = unquote(value);
    }
  return { ...env, PIP_CONFIG_FILE: devNull, PIP_NO_COLOR: "1" };
}

/** Read a text as Python writes it. @param {string} literal */
function unquote(literal) {
  /** @type {Record<string, string>} */
  const special = { n: "\n", r: "\r", t: "\t" };
  return literal
    .slice(1, -1)
    .replaceAll(
      /\\(?:x([\da-f]{2})|u([\da-f]{4})|(.))/g,
      (_, /** @type {string} */ byte, /** @type {string} */ unit, /** @type {string} */ other) => {
        const code = byte ?? unit;
        return code === undefined
          ? (special[other] ?? other)
          : String.fromCharCode(Number.parseInt(code, 16));
      },
    );
}

/** Options of git that make its answers the same for every user. */
export const GIT_OPTIONS = [
  "color.ui=false",
  "core.quotePath=true",
  "grep.lineNumber=false",
  "grep.column=false",
  "grep.patternType=default",
  "grep.fullName=false",
  "log.showSignature=false",
  "log.follow=false",
  "status.relativePaths=true",
].flatMap((setting) => ["-c", setting]);
