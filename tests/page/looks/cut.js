// Words that their box cuts off.
() =>
  [...document.querySelectorAll("h1, h2, .waits, .times, .live, button")]
    .filter((each) => each.offsetParent !== null && each.clientWidth > 0 && each.scrollWidth > each.clientWidth + 1)
    .filter((each) => !each.classList.contains("toggle"))
    .map((each) => each.outerHTML.slice(0, 120))
