// Texts whose contrast with their ground is below what WCAG 2 asks for (level AA).
() => {
  const numbers = (colour) => colour.match(/[0-9.]+/g).map((each, at) => Number(each) * (colour.startsWith("color(srgb") && at < 3 ? 255 : 1));
  const linear = (each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const found = numbers(getComputedStyle(each).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const ratio = (node) => {
    const [high, low] = [light(numbers(getComputedStyle(node).color)), light(ground(node))].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const has = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  return [...document.querySelectorAll("main *, header *")]
    .filter((node) => node.offsetParent && !node.disabled && has(node) && ratio(node) < 4.5)
    .map((node) => `${ratio(node).toFixed(1)} ${node.className} ${node.textContent.slice(0, 40)}`);
}
