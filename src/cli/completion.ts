/** `atlas completion SHELL`: print a script that completes commands, tasks and flags. */
import type { Command } from "commander";
import { UsageError } from "../errors.js";
import { flagsOf } from "../experiment/flags.js";
import { builtinExperiments, loadExperiment } from "../experiment/load.js";
import { suggestion } from "../suggest.js";
import { COMMON_FLAGS } from "./options.js";

const SHELLS = { bash, zsh, fish } as const;

/** A command, and the words that may follow it. */
export interface Words {
  name: string;
  words: readonly string[];
}

/** Add the command to `program`. */
export function register(program: Command): void {
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
      const others = program.commands.map((command) => command.name());
      process.stdout.write(SHELLS[shell as keyof typeof SHELLS](await allWords(others)));
    });
}

/**
 * List every command with its tasks and flags.
 *
 * @param commands names of all commands, experiments among them
 */
export async function allWords(commands: readonly string[]): Promise<Words[]> {
  const all: Words[] = [];
  const common = COMMON_FLAGS.map(({ name }) => `--${name}`);
  for (const { name, path } of builtinExperiments()) {
    const { tasks } = await loadExperiment(path);
    const flags = Object.values(tasks).flatMap((task) =>
      flagsOf(task).filter((flag) => !flag.hidden),
    );
    const own = flags.map((flag) => `--${flag.name}`);
    const words = [...Object.keys(tasks), "--task", "--preset", "--help", ...own, ...common];
    all.push({ name, words: [...new Set(words)] });
  }
  const known = new Set(all.map(({ name }) => name));
  for (const name of commands)
    if (!known.has(name)) all.push({ name, words: ["--help", ...common] });
  return all;
}

function bash(all: readonly Words[]): string {
  const cases = all.map(({ name, words }) => `    ${name}) words="${words.join(" ")}" ;;`);
  return `# Completion of atlas for bash.
_atlas() {
  local current=\${COMP_WORDS[COMP_CWORD]} words
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="${all.map(({ name }) => name).join(" ")}"
  else
    case \${COMP_WORDS[1]} in
${cases.join("\n")}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ \${#COMPREPLY[@]} -eq 0 ] && COMPREPLY=($(compgen -f -- "$current"))
}
complete -F _atlas atlas
`;
}

function zsh(all: readonly Words[]): string {
  const cases = all.map(
    ({ name, words }) => `    ${name}) compadd -- ${words.join(" ")}; _files ;;`,
  );
  return `#compdef atlas
# Completion of atlas for zsh.
_atlas() {
  if (( CURRENT == 2 )); then
    compadd -- ${all.map(({ name }) => name).join(" ")}
    return
  fi
  case \${words[2]} in
${cases.join("\n")}
  esac
}
compdef _atlas atlas
`;
}

function fish(all: readonly Words[]): string {
  const lines = [
    "# Completion of atlas for fish.",
    `complete -c atlas -n __fish_use_subcommand -f -a "${all.map(({ name }) => name).join(" ")}"`,
  ];
  for (const { name, words } of all)
    lines.push(
      `complete -c atlas -n "__fish_seen_subcommand_from ${name}" -a "${words.join(" ")}"`,
    );
  return `${lines.join("\n")}\n`;
}
