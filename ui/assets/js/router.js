/**
 * Turns the fragment of the address into a page and its parameters.
 *
 * Fragments, as then every address of the page is one file on the server: it works below any path
 * prefix, known to the agent or only to a proxy before it.
 */

/** @typedef {{page: string, parameter: string}} Route */

/** How others call these pages: their bookmarks work. */
const ALIASES = { component: "components", graph: "overview", clustering: "cluster", peers: "cluster" };
const PAGES = new Set(["overview", "components", "reservoir", "cardinality", "debug", "cluster"]);

/**
 * "#/components/a%2Fb" is page "components" with parameter "a/b"; what is unknown is "missing".
 *
 * @param {string} fragment
 * @returns {Route}
 */
export function parse(fragment) {
  const path = fragment.replace(/^#?\/?/, "").replace(/\/$/, "");
  const [first, ...rest] = path.split("/");
  const name = first === "" ? "overview" : decoded(first);
  const page = Object.hasOwn(ALIASES, name) ? ALIASES[name] : name;
  const parameter = decoded(rest.join("/"));
  return PAGES.has(page) ? { page, parameter } : { page: "missing", parameter: decoded(path) };
}

/** The fragment of a page. */
export function link(page, parameter = "") {
  if (parameter !== "") return `#/${page}/${encodeURIComponent(parameter)}`;
  return page === "overview" ? "#/" : `#/${page}`;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
