/** `atlas completion SHELL`: print a script that completes commands, tasks and flags. */
import { Command } from "commander";
import { UsageError } from "../errors.js";
import { flagsOf } from "../experiment/flags.js";
import { builtinExperiments, loadExperiment } from "../experiment/load.js";
import { suggestion } from "../suggest.js";
import { COMMON_FLAGS } from "./options.js";

const SHELLS = { bash, zsh, fish } as const;

/** A command or a subcommand, such as "worker start", and the words that may follow it. */
export interface Words {
  name: string;
  words: readonly string[];
}

/** Loads the module of a command, which registers it. */
export type Load = () => Promise<{ register(program: Command, all: readonly Load[]): void }>;

/** Add the command to `program`. @param all the modules of all commands beside experiments */
export function register(program: Command, all: readonly Load[]): void {
  program
    .command("completion")
    .description("Print a script that completes commands, tasks and flags in a shell")
    .argument("<shell>", Object.keys(SHELLS).join(", "))
    .addHelpText(
      "after",
      `
Examples:
  eval "$(atlas completion bash)"
  atlas completion fish > ~/.config/fish/completions/atlas.fish`,
    )
    .action(async (shell: string) => {
      if (!Object.hasOwn(SHELLS, shell))
        throw new UsageError(
          "there is no completion for " +
            `${JSON.stringify(shell)}${suggestion(shell, Object.keys(SHELLS))}`,
          `choose one of ${Object.keys(SHELLS).join(", ")}`,
        );
      process.stdout.write(SHELLS[shell as keyof typeof SHELLS](await allWords(all)));
    });
}

/** List every command and subcommand with its tasks and flags. */
export async function allWords(modules: readonly Load[]): Promise<Words[]> {
  const all: Words[] = [];
  const common = COMMON_FLAGS.map(({ name }) => `--${name}`);
  for (const { name, path } of builtinExperiments()) {
    const { tasks } = await loadExperiment(path);
    const flags = Object.values(tasks).flatMap((task) =>
      flagsOf(task).filter((flag) => !flag.hidden),
    );
    const own = flags.flatMap(({ name, positional, option }) =>
      positional
        ? (/one of ([\w-]+(?:, [\w-]+)*)/.exec(option.description)?.[1]?.split(", ") ?? [])
        : [`--${name}`],
    );
    const words = [...Object.keys(tasks), "--task", "--preset", "--help", ...own, ...common];
    all.push({ name, words: [...new Set(words)] });
  }
  all.push({ name: "run", words: ["--help", ...common] });
  for (const load of modules) {
    const program = new Command();
    (await load()).register(program, modules);
    for (const command of program.commands) all.push(...wordsOf(command, command.name()));
  }
  return [...all, { name: "help", words: commandsOf(all) }];
}

/** List the words of a command, and those of its subcommands. */
function wordsOf(command: Command, name: string): Words[] {
  const help = command.createHelp();
  const flags = help.visibleOptions(command).flatMap(({ long }) => long ?? []);
  const subcommands = command.commands.flatMap((sub) => wordsOf(sub, `${name} ${sub.name()}`));
  const names = command.commands.map((sub) => sub.name());
  const words = command.name() === "completion" ? Object.keys(SHELLS) : names;
  return [{ name, words: [...words, ...flags] }, ...subcommands];
}

const isCommand = (name: string) => !name.includes(" ");

/** Split a name into the command and, for a subcommand, the second word. */
function partsOf(name: string): [command: string, subcommand?: string] {
  return name.split(" ") as [string, string?];
}

function bash(all: readonly Words[]): string {
  const cases = all.map(({ name, words }) => `    "${name}") words="${words.join(" ")}" ;;`);
  return `# Completion of atlas for bash.
_atlas() {
  local current=\${COMP_WORDS[COMP_CWORD]} words= name
  [ "$COMP_CWORD" -eq 1 ] && words="${commandsOf(all).join(" ")}"
  for name in "\${COMP_WORDS[1]}" "\${COMP_WORDS[1]} \${COMP_WORDS[2]}"; do
    [ "$COMP_CWORD" -gt "$(set -- $name; echo $#)" ] || continue
    case $name in
${cases.join("\n")}
    esac
  done
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ \${#COMPREPLY[@]} -eq 0 ] && COMPREPLY=($(compgen -f -- "$current"))
}
complete -F _atlas atlas
`;
}

function zsh(all: readonly Words[]): string {
  const cases = all.map(({ name, words }) => `      "${name}") offered=(${words.join(" ")}) ;;`);
  return `#compdef atlas
# Completion of atlas for zsh.
_atlas() {
  local name
  local -a offered
  if (( CURRENT == 2 )); then
    compadd -- ${commandsOf(all).join(" ")}
    return
  fi
  for name in "\${words[2]}" "\${words[2]} \${words[3]}"; do
    case $name in
${cases.join("\n")}
    esac
  done
  compadd -- $offered
  _files
}
compdef _atlas atlas
`;
}

function fish(all: readonly Words[]): string {
  const lines = [
    "# Completion of atlas for fish.",
    `complete -c atlas -n __fish_use_subcommand -f -a "${commandsOf(all).join(" ")}"`,
  ];
  for (const { name, words } of all) {
    const [command, subcommand] = partsOf(name);
    const own = all.flatMap((other) => {
      const [above, sub] = partsOf(other.name);
      return above === command && sub !== undefined ? [sub] : [];
    });
    const where = [`__fish_seen_subcommand_from ${command}`];
    if (subcommand !== undefined) where.push(`__fish_seen_subcommand_from ${subcommand}`);
    else if (own.length > 0) where.push(`not __fish_seen_subcommand_from ${own.join(" ")}`);
    lines.push(`complete -c atlas -n "${where.join("; and ")}" -a "${words.join(" ")}"`);
  }
  return `${lines.join("\n")}\n`;
}

function commandsOf(all: readonly Words[]): string[] {
  return all.map(({ name }) => name).filter(isCommand);
}
