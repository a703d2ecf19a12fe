// Loaded before the page is drawn, so that a chosen theme doesn't flash.
(() => {
  const names = ["auto", "light", "dark"];
  const root = document.documentElement;

  function stored() {
    try {
      return names.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : names[0];
    } catch {
      return names[0]; // storage can be switched off
    }
  }

  function apply(name) {
    if (name === names[0]) delete root.dataset.theme;
    else root.dataset.theme = name;
  }

  let current = stored();
  apply(current);

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => {
      button.textContent = `◐ ${current.charAt(0).toUpperCase()}${current.slice(1)}`;
      button.setAttribute("aria-label", `Theme: ${current}`);
    };
    label();
    button.addEventListener("click", () => {
      current = names[(names.indexOf(current) + 1) % names.length];
      apply(current);
      label();
      try {
        localStorage.setItem("theme", current);
      } catch {
        // the choice then lasts for this page only
      }
    });
  });
})();
