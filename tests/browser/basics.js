// Turns a page into a list of what somebody with a keyboard, a screen reader or weak eyes would miss.
const problems = [];
const all = (selector) => [...document.querySelectorAll(selector)];
const isSeen = (element) => element.getClientRects().length > 0 && getComputedStyle(element).visibility !== "hidden";
const shown = (element) => element.outerHTML.slice(0, 120);

const name = (element) =>
  (element.getAttribute("aria-label") ?? "") +
  [...(element.labels ?? [])].map((label) => label.textContent).join("") +
  (element.tagName === "SELECT" ? "" : element.textContent) +
  (element.getAttribute("title") ?? "");
for (const control of all("a[href], button, input, select, textarea, summary, [tabindex='0'], [role='meter']")) {
  if (isSeen(control) && name(control).trim() === "") problems.push(`no name: ${shown(control)}`);
}

if (all("h1").length !== 1) problems.push(`${all("h1").length} h1`);
let level = 0;
for (const heading of all("h1, h2, h3, h4, h5, h6").filter(isSeen)) {
  const next = Number(heading.tagName[1]);
  if (next > level + 1) problems.push(`h${next} after h${level}: ${shown(heading)}`);
  level = next;
}
for (const image of all("img")) if (image.getAttribute("alt") === null) problems.push(`no text: ${shown(image)}`);
for (const drawing of all("svg").filter(isSeen)) {
  const isNamed = drawing.getAttribute("aria-hidden") === "true" || (drawing.getAttribute("aria-label") ?? "") !== "";
  if (!isNamed) problems.push(`neither hidden nor named: ${shown(drawing)}`);
}
for (const table of all("table")) if (table.caption === null) problems.push(`no caption: ${shown(table)}`);
if (document.documentElement.lang === "") problems.push("no language");
if (all("main").length !== 1 || all("nav[aria-label]").length === 0) problems.push("landmarks");
const ids = all("[id]").map(({ id }) => id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) problems.push(`two #${id}`);
for (const element of all("[aria-labelledby]")) {
  if (document.getElementById(element.getAttribute("aria-labelledby")) === null) problems.push(`labelled by nothing: ${shown(element)}`);
}
if (document.documentElement.scrollWidth > innerWidth) problems.push(`${document.documentElement.scrollWidth} wide at ${innerWidth}`);

// Contrast of text on what is behind it: 4.5, or 3 where it is large.
const channels = (color) => {
  const numbers = (color.match(/[\d.]+/g) ?? []).map(Number);
  const scale = color.startsWith("color(") ? 255 : 1;
  return [...numbers.slice(0, 3).map((value) => value * scale), numbers[3] ?? 1];
};
const over = ([r, g, b, a], [x, y, z]) => [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a), 1];
const ground = (element) => {
  const color = channels(getComputedStyle(element).backgroundColor);
  if (color[3] === 1) return color;
  return over(color, element.parentElement === null ? [255, 255, 255, 1] : ground(element.parentElement));
};
const light = (color) => {
  const [r, g, b] = color.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (one, other) => {
  const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const told = new Set();
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (walker.currentNode.textContent.trim() === "" || !isSeen(element) || element.closest(".unseen, option, noscript") !== null) continue;
  const style = getComputedStyle(element);
  const isDrawn = element.closest("svg") !== null;
  const behind = ground(isDrawn ? element.closest("svg").parentElement : element);
  const ratio = contrast(over(channels(isDrawn ? style.fill : style.color), behind), behind);
  const size = parseFloat(style.fontSize);
  const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
  const key = `${element.tagName}.${element.getAttribute("class")}`;
  if (ratio < least && !told.has(key)) problems.push(`contrast ${ratio.toFixed(2)} of ${key}: ${walker.currentNode.textContent.slice(0, 40)}`);
  told.add(key);
}
return problems;
