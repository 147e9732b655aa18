/**
 * Turns trees of statements and values into configuration text, in pieces that can be coloured. Pure.
 *
 * Limits: what is nested deeper than `DEPTH_MAX` is "…": no answer of an agent makes the page hang.
 *
 * @typedef {[kind: ""|"name"|"block"|"string"|"number"|"literal"|"capsule", text: string]} Token
 */

const DEPTH_MAX = 40;
/** Arrays of plain values up to this long stand on one line. */
const LINE_CHARACTERS_MAX = 72;
const IDENTIFIER = /^[A-Za-z_][A-Za-z0-9_]*$/;

/**
 * @param {import("../contract.js").Statement[]} body
 * @returns {Token[]}
 */
export function tokens(body, depth = 0) {
  if (depth > DEPTH_MAX) return [["", "…\n"]];
  const indent = "  ".repeat(depth);
  const isAttribute = (statement) => statement.type === "attr";
  // Names of attributes that stand together end at one column, as in formatted configuration.
  const widths = runs(body.map((statement) => (isAttribute(statement) ? statement.name.length : 0)));
  return body.flatMap((statement, at) => {
    if (isAttribute(statement)) {
      const gap = " ".repeat(widths[at] - statement.name.length);
      return [["", indent], ["name", statement.name], ["", `${gap} = `], ...value(statement.value, depth), ["", "\n"]];
    }
    const label = statement.label ? [["", " "], ["string", quoted(statement.label)]] : [];
    const space = at > 0 ? [["", "\n"]] : [];
    const head = [...space, ["", indent], ["block", statement.name], ...label];
    if (statement.body.length === 0) return [...head, ["", " { }\n"]];
    return [...head, ["", " {\n"], ...tokens(statement.body, depth + 1), ["", `${indent}}\n`]];
  });
}

/** For each width the widest of its run; 0 ends a run. */
function runs(widths) {
  const found = [...widths];
  for (let start = 0; start < widths.length; start += 1) {
    let end = start;
    while (end < widths.length && widths[end] > 0) end += 1;
    const most = Math.max(0, ...widths.slice(start, end));
    for (let at = start; at < end; at += 1) found[at] = most;
    start = end;
  }
  return found;
}

/** @returns {Token[]} */
function value({ type, value: content }, depth) {
  if (depth > DEPTH_MAX) return [["", "…"]];
  switch (type) {
    case "string":
      return [["string", quoted(content)]];
    case "number":
      return [["number", String(content)]];
    case "bool":
    case "null":
      return [["literal", String(content)]];
    case "array":
      return list(content.map((item) => value(item, depth + 1)), ["[", "]"], depth);
    case "object":
      return list(content.map(({ key, value: item }) => [["name", IDENTIFIER.test(key) ? key : quoted(key)], ["", " = "], ...value(item, depth + 1)]), ["{", "}"], depth, true);
    default:
      return [["capsule", String(content)]];
  }
}

function list(items, [open, close], depth, isTall = false) {
  if (items.length === 0) return [["", open + close]];
  const isFlat = items.every((item) => !plain(item).includes("\n"));
  const length = items.reduce((sum, item) => sum + plain(item).length + 2, 0);
  if (!isTall && isFlat && length <= LINE_CHARACTERS_MAX) {
    return [["", open], ...items.flatMap((item, at) => (at === 0 ? item : [["", ", "], ...item])), ["", close]];
  }
  const indent = "  ".repeat(depth + 1);
  return [["", `${open}\n`], ...items.flatMap((item) => [["", indent], ...item, ["", ",\n"]]), ["", `${"  ".repeat(depth)}${close}`]];
}

const quoted = (text) => JSON.stringify(String(text));

/** The text alone. */
export function plain(pieces) {
  return pieces.map(([, text]) => text).join("");
}
