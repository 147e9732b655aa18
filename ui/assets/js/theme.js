/**
 * Turns the reader's choice of light, dark or "as the system" into the page's colours.
 *
 * Loaded first, so that the page does not flash in the other colours. Where nothing can be
 * remembered (private windows), the choice holds until the page is left.
 */

const KEY = "penstock-theme";
const CHOICES = ["auto", "light", "dark"];

function stored() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

let choice = CHOICES.includes(stored() ?? "") ? stored() : "auto";
apply();

function apply() {
  if (choice === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", choice);
}

/** "auto", "light" or "dark". */
export function theme() {
  return choice;
}

/** Takes the next choice, remembers and tells it. */
export function nextTheme() {
  choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    // It holds for this page.
  }
  apply();
  return choice;
}
