"use strict";
const large = document.getElementById("large");
for (const button of document.querySelectorAll("figure button")) {
  button.addEventListener("click", () => {
    large.querySelector("img").src = button.firstElementChild.src;
    large.querySelector("p").textContent = button.firstElementChild.alt;
    large.showModal();
  });
}
large.addEventListener("click", () => large.close());
