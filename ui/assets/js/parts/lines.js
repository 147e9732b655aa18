/**
 * Turns chunks into a bounded list of lines. Pure.
 *
 * Limits: `LINES_MAX` lines, `LINE_CHARACTERS_MAX` each; `left` counts those that had to go.
 */

export const LINES_MAX = 1000;
export const LINE_CHARACTERS_MAX = 4000;

export class LineKeeper {
  /** @type {string[]} */
  lines = [];
  left = 0;

  /** @param {string} chunk */
  add(chunk) {
    for (const line of chunk.split("\n")) {
      if (line.trim() === "") continue;
      this.lines.push(line.length > LINE_CHARACTERS_MAX ? `${line.slice(0, LINE_CHARACTERS_MAX)}…` : line);
    }
    const over = this.lines.length - LINES_MAX;
    if (over <= 0) return;
    this.lines.splice(0, over);
    this.left += over;
  }

  clear() {
    this.lines = [];
    this.left = 0;
  }
}
