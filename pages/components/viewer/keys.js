/*
 * What every component here shares: words for a share, sliders, and whose keys they are.
 */

const percent = (value, digits = 0) => `${(100 * value).toFixed(digits)} %`;

function fillSlider(slider, value, words) {
  if (Number(slider.value) !== value) slider.value = value;
  const share = (value - slider.min) / (slider.max - slider.min);
  slider.style.setProperty("--share", share);
  slider.setAttribute("aria-valuetext", words(value)); // '55 %', where the slider itself holds 0.55
  const output = slider.closest(".row").querySelector("output");
  output.textContent = words(value);
  output.ariaLive = "off"; // the slider has said it
}

const WRITES = 'textarea, select, [contenteditable=""], [contenteditable="true"], [role="combobox"], [role="dialog"] *';
const WRITING_INPUTS = "input:not([type=range], [type=checkbox], [type=radio], [type=file], [type=button])";

function isTyping(target) {
  return target instanceof Element && target.matches(`${WRITES}, ${WRITING_INPUTS}`);
}

function usesArrows(target) {
  const own = "input:not([type=checkbox]), canvas[data-testid=data-grid-canvas], [role=tab], [role=radio], [role=slider], [role=option], [role=grid], [role=menuitem]";
  return target instanceof Element && target.matches(own);
}

/** An element with its properties and children. */
function element(name, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

/** A model's score in words, never rounded to certainty; as the finding and the report say it. */
function scoreWords(score) {
  return score > 0.99 ? "> 0.99" : score < 0.01 ? "< 0.01" : score.toFixed(2);
}
