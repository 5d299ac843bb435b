// How many pixels of the chart have the colour of the weighted mean, as it is in a light scheme.
() => {
  const canvas = document.querySelector(".chart canvas");
  if (!canvas) return 0;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let found = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] === 0x17 && data[i + 1] === 0x61 && data[i + 2] === 0xc0 && data[i + 3] > 250) found++;
  }
  return found;
}
