// Explorers without a kernel: sliders choose among stored pictures.
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll(".frames")) {
    const { controls, words } = JSON.parse(box.dataset.frames), sliders = [...box.querySelectorAll("input")];
    const show = () => {
      const k = sliders.reduce((sum, slider, i) => sum * controls[i].texts.length + +slider.value, 0), image = box.querySelector("img");
      image.src = `${box.dataset.path}${k}.webp`;
      image.alt = words[k];
      sliders.forEach((slider, i) => {
        slider.nextElementSibling.textContent = controls[i].texts[slider.value];
        slider.setAttribute("aria-valuetext", controls[i].texts[slider.value]);
      });
    };
    sliders.forEach((slider) => slider.addEventListener("input", show));
  }
});

// The live model: its frame is as high as what it shows.
document.addEventListener("DOMContentLoaded", () => {
  for (const frame of document.querySelectorAll("iframe.live"))
    frame.addEventListener("load", () => {
      const main = frame.contentDocument?.querySelector("main"); // null if the page was opened as a file
      const fit = () => (frame.style.height = `${main.offsetHeight + 2}px`);
      if (main) new ResizeObserver(fit).observe(main);
    });
});
