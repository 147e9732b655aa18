/**
 * Turns numbers into short text with units.
 *
 * Three digits are what one can take in at a glance; who needs all of them finds them in titles
 * and tables (`exact`). A number that is not there is a dash, never a zero.
 */

const NONE = "–";
/** No break between a number and its unit. */
const GAP = "\u202f";
const COUNTS = ["", "k", "M", "G", "T", "P"];
const BYTES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** 1234567 is "1.23 M". */
export function count(value) {
  if (!isNumber(value)) return NONE;
  const [scaled, step] = scale(value, 1000, COUNTS.length);
  return step === 0 ? small(value) : `${digits(scaled)}${GAP}${COUNTS[step]}`;
}

/** 1234567 is "1.23 M/s". */
export function rate(value) {
  if (!isNumber(value)) return NONE;
  const text = count(value);
  return text.includes(GAP) ? `${text}/s` : `${text}${GAP}/s`;
}

/** 3650722202 is "3.4 GiB". */
export function bytes(value) {
  if (!isNumber(value)) return NONE;
  const [scaled, step] = scale(value, 1024, BYTES.length);
  return `${step === 0 ? Math.round(value) : digits(scaled)}${GAP}${BYTES[step]}`;
}

/** The same per second. */
export function byteRate(value) {
  return isNumber(value) ? `${bytes(value)}/s` : NONE;
}

/** 0.0123 is "12 ms", 192 is "3 min 12 s". */
export function duration(seconds) {
  if (!isNumber(seconds)) return NONE;
  const size = Math.abs(seconds);
  if (size === 0) return `0${GAP}s`;
  if (size < 0.001) return `${digits(seconds * 1e6)}${GAP}µs`;
  if (size < 1) return `${digits(seconds * 1000)}${GAP}ms`;
  if (size < 10) return `${digits(seconds)}${GAP}s`;
  if (size < MINUTE - 0.5) return `${Math.round(seconds)}${GAP}s`;
  if (size < HOUR - 0.5) return two(seconds, MINUTE, "min", 1, "s");
  if (size < DAY - 30) return two(seconds, HOUR, "h", MINUTE, "min");
  return two(seconds, DAY, "d", HOUR, "h");
}

function two(seconds, unit, name, subunit, subname) {
  const all = Math.round(seconds / subunit);
  const per = unit / subunit;
  const [whole, part] = [Math.trunc(all / per), Math.abs(all % per)];
  return part === 0 ? `${whole}${GAP}${name}` : `${whole}${GAP}${name} ${part}${GAP}${subname}`;
}

/** "12 s ago"; what is less than a second old is "just now". */
export function ago(seconds) {
  if (!isNumber(seconds)) return NONE;
  return seconds < 1 ? "just now" : `${duration(Math.round(seconds))} ago`;
}

/** 0.1234 is "12.3 %"; a share that is neither nothing nor all never looks like it. */
export function percent(share) {
  if (!isNumber(share)) return NONE;
  const value = share * 100;
  if (value > 0 && value < 0.1) return `< 0.1${GAP}%`;
  if (value < 100 && value > 99.9) return `> 99.9${GAP}%`;
  return `${value < 10 ? trim(value.toFixed(1)) : Math.round(value)}${GAP}%`;
}

/** All digits, in groups. */
export function exact(value) {
  return isNumber(value) ? Math.round(value).toLocaleString("en-US").replaceAll(",", GAP) : NONE;
}

/** The wall clock's time of a unix time. */
export function clock(unixSeconds) {
  if (!isNumber(unixSeconds)) return NONE;
  const date = new Date(unixSeconds * 1000);
  return date.toLocaleTimeString("en-GB");
}

/** Day and time. */
export function dateTime(date) {
  if (Number.isNaN(date.getTime())) return NONE;
  const day = `${date.getFullYear()}-${two2(date.getMonth() + 1)}-${two2(date.getDate())}`;
  return `${day} ${date.toLocaleTimeString("en-GB")}`;
}

const two2 = (value) => String(value).padStart(2, "0");

/** "1 series", "2 samples". */
export function plural(value, one, many) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

function scale(value, base, steps) {
  let [scaled, step] = [value, 0];
  // What would round to four digits belongs to the next unit.
  while (Math.abs(scaled) >= base * 0.9995 && step < steps - 1) {
    scaled /= base;
    step += 1;
  }
  return [scaled, step];
}

function digits(value) {
  const size = Math.abs(value);
  if (size >= 99.95) return String(Math.round(value));
  return trim(size >= 9.995 ? value.toFixed(1) : value.toFixed(2));
}

function small(value) {
  if (Number.isInteger(value)) return String(value);
  return Math.abs(value) < 0.01 ? value.toPrecision(1) : digits(value);
}

const trim = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
