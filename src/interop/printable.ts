/**
 * Make a text from an untrusted file printable in one line of a terminal. Control characters and
 * changes of the writing direction are escaped, and characters beyond `longest` are cut off.
 */
export function printable(text: string, longest = 200): string {
  const shown = text.length > longest ? `${text.slice(0, longest)}…` : text;
  return shown.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (c) => `\\u${c.codePointAt(0)!.toString(16).padStart(4, "0")}`,
  );
}
