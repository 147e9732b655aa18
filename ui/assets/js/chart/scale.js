/**
 * Turns values into the numbers of an axis and the path of a line. Pure.
 */

const DAY = 86_400;
/** What clocks have: seconds, minutes, hours. */
const CLOCK_STEPS = [2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, DAY];

/** Round steps from 0 to at least `most`: about `count` of them, in tens, powers of two, or (60) of time. */
export function ticks(most, count, base = 10) {
  if (!(most > 0)) return [0, 1];
  const raw = most / count;
  if (base === 60 && raw > 1) return multiples(CLOCK_STEPS.find((step) => step >= raw) ?? Math.ceil(raw / DAY) * DAY, most);
  // Parts of a second go in tens like everything else.
  const power = base === 2 ? 2 : 10;
  const steps = power === 10 ? [1, 2, 2.5, 5, 10] : [1, 2];
  const size = power ** Math.floor(Math.log(raw) / Math.log(power) + 1e-9);
  const step = size * (steps.find((factor) => size * factor >= raw * 0.999) ?? steps[steps.length - 1]);
  return multiples(step, most);
}

function multiples(step, most) {
  const found = [];
  for (let at = 0; found.length === 0 || found[found.length - 1] < most * 0.999; at += 1) found.push(at * step);
  return found;
}

/** Round ages for the axis of a span: 3600 s is 60, 40 and 20 min, and now. */
export function ages(seconds) {
  const step = [60, 120, 300, 600, 1200, 1800, 3600].find((size) => seconds / size <= 3) ?? seconds / 3;
  const found = [];
  for (let age = Math.floor(seconds / step) * step; age >= 0; age -= step) found.push(age);
  return found;
}

/** The path of values over a width; where there is none the line is interrupted. */
export function linePath(values, x, y) {
  let path = "";
  let isDrawn = false;
  values.forEach((value, at) => {
    if (value === null) {
      isDrawn = false;
      return;
    }
    const isAlone = !isDrawn && (values[at + 1] ?? null) === null;
    path += `${isDrawn ? "L" : "M"}${one(x(at))},${one(y(value))}${isAlone ? "h0.1" : ""}`;
    isDrawn = true;
  });
  return path;
}

const one = (value) => Math.round(value * 10) / 10;

/** The greatest of several lines, 0 for none. */
export function greatest(lines) {
  let most = 0;
  for (const values of lines) for (const value of values) if (value !== null && value > most) most = value;
  return most;
}

/** The last value that is there. */
export function last(values) {
  for (let at = values.length - 1; at >= 0; at -= 1) if (values[at] !== null) return values[at];
  return null;
}
