/**
 * Text from a file that a stranger may have made, as one line for a terminal: what would steer it (control characters, changes of the direction of
 * writing) is escaped, and what is beyond `longest` characters is left out.
 */
export function printable(text: string, longest = 200): string {
  const shown = text.length > longest ? `${text.slice(0, longest)}…` : text;
  return shown.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (c) => `\\u${c.codePointAt(0)!.toString(16).padStart(4, "0")}`,
  );
}
