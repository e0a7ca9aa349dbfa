(function () {
  "use strict";
  // Bokeh can typeset formulas and would look for MathJax; a report is text.
  function models() {
    var all = [];
    window.Bokeh.documents.forEach(function (doc) {
      var found = doc.all_models || doc._all_models;
      all = all.concat(Array.from(typeof found.values === "function" ? found.values() : found));
    });
    return all;
  }
  document.addEventListener("click", function (event) {
    var button = event.target.closest("button[data-arm]");
    if (!button) { return; }
    var arm = button.dataset.arm, shown = button.getAttribute("aria-pressed") !== "true";
    document.querySelectorAll("button[data-arm='" + arm + "']").forEach(function (other) {
      other.setAttribute("aria-pressed", String(shown));
    });
    models().forEach(function (model) {
      if (model.name === "arm-" + arm) { model.visible = shown; }
    });
  });
})();
