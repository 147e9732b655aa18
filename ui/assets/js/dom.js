/**
 * Turns data into elements, text always as text.
 *
 * What the agent tells holds label values, urls and error texts of strangers. There is one way
 * from data to the document, and it makes text nodes and attributes: no markup is ever parsed.
 * Styles are set through the CSSOM, as the content security policy allows no inline ones.
 */

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * @param {string} tag
 * @param {Record<string, any>} [properties] attributes; `on` holds listeners, `style` CSS properties
 * @param {...(Child | Child[])} children
 * @returns {HTMLElement}
 */
export function h(tag, properties = {}, ...children) {
  return /** @type {HTMLElement} */ (fill(document.createElement(tag), properties, children));
}

/**
 * @param {string} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Child | Child[])} children
 * @returns {SVGElement}
 */
export function svg(tag, properties = {}, ...children) {
  return /** @type {SVGElement} */ (fill(document.createElementNS(SVG, tag), properties, children));
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === "style") {
      for (const [property, setting] of Object.entries(value)) element.style.setProperty(property, setting);
    } else {
      setAttribute(element, name, value);
    }
  }
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  return children
    .flat()
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}

/** Sets an attribute where it differs; `false`, null and undefined remove it. */
export function setAttribute(element, name, value) {
  if (value === false || value === null || value === undefined) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/** Sets the text of an element where it differs, so that a selection in it stays. */
export function setText(element, text) {
  const next = String(text);
  if (element.textContent !== next) element.textContent = next;
}

/** Replaces what an element holds. */
export function setChildren(element, ...children) {
  element.replaceChildren(...nodes(children));
}

/**
 * Keeps the children of `parent` in step with `items`: one element a key, made once, updated in
 * place, so that focus, selection and what is folded open survive each second's news.
 *
 * @template T
 * @param {Element} parent
 * @param {T[]} items
 * @param {(item: T) => string} keyOf
 * @param {(item: T) => {element: Element, update: (item: T) => void}} make
 */
export function keyed(parent, items, keyOf, make) {
  const known = parts.get(parent) ?? new Map();
  const next = new Map();
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    if (next.has(key)) continue;
    const part = known.get(key) ?? make(item);
    part.update(item);
    next.set(key, part);
    if (part.element === place) place = place.nextElementSibling;
    else parent.insertBefore(part.element, place);
  }
  for (const [key, part] of known) if (!next.has(key)) part.element.remove();
  parts.set(parent, next);
}

/** @type {WeakMap<Element, Map<string, {element: Element, update: Function}>>} */
const parts = new WeakMap();

/** Calls back with the width of an element now and whenever it changes, until the signal. */
export function onWidth(element, signal, callback) {
  let last = 0;
  const observer = new ResizeObserver((entries) => {
    const width = Math.floor(entries[entries.length - 1].contentRect.width);
    if (width > 0 && width !== last) {
      last = width;
      callback(width);
    }
  });
  observer.observe(element);
  signal.addEventListener("abort", () => observer.disconnect(), { once: true });
}
