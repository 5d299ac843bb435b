// What a reader can act on, and a screen reader has no name for.
() =>
  [...document.querySelectorAll("button, a, input, select, [tabindex='0'], [role=img]")]
    .filter((each) => each.offsetParent !== null)
    .filter((each) => !(each.getAttribute("aria-label") || each.textContent.trim() || each.labels?.length))
    .map((each) => each.outerHTML.slice(0, 120))
