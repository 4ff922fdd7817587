"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const colours = ["blue", "orange", "green", "purple", "red"];
  const fill = (place, row) => {
    place.querySelector("img").src = data.thumbs[row];
    place.style.setProperty("--group", `var(--${colours[data.groups[row] % colours.length]})`);
    place.addEventListener("click", () => choose(row));
    return place;
  };
  const button = (row, words) => {
    const place = document.createElement("button");
    place.type = "button";
    place.className = "one";
    place.dataset.row = row;
    place.title = data.names[row];
    const image = document.createElement("img");
    image.alt = data.names[row];
    place.append(image);
    if (words) {
      const label = document.createElement("span");
      label.textContent = words;
      place.append(label);
    }
    return fill(place, row);
  };
  const map = document.getElementById("map");
  const choose = (row, asked = true) => {
    map.querySelectorAll(".chosen").forEach((one) => one.classList.remove("chosen"));
    map.children[row].classList.add("chosen");
    const large = document.getElementById("large");
    large.src = data.thumbs[row];
    large.alt = data.names[row];
    document.getElementById("name").textContent = `${data.names[row]} · group ${data.groups[row] + 1}`;
    document.getElementById("near").replaceChildren(
      ...data.neighbours[row].map((other, place) => button(other, data.cosines[row][place].toFixed(3))));
    const chosen = document.getElementById("chosen");
    chosen.dataset.row = row;
    if (asked) chosen.scrollIntoView({ block: "nearest" });
  };
  document.querySelectorAll(".one").forEach((place) => fill(place, Number(place.dataset.row)));
  data.places.forEach(([x, y], row) => {
    const place = button(row);
    place.style.left = `calc(2px + (100% - 42px) * ${x})`;
    place.style.top = `calc(2px + (100% - 42px) * ${y})`;
    map.append(place);
  });
  choose(0, false);
})();
