(function () {
  "use strict";
  var body = document.body, number = Number(body.dataset.number), state = body.dataset.state, since = 0, asking = false;
  var MOST_POINTS = 3600, sources = {};
  var byId = function (id) { return document.getElementById(id); };

  function text(parent, tag, words, kind) {
    var made = document.createElement(tag);
    made.textContent = words;
    if (kind) { made.className = kind; }
    parent.appendChild(made);
    return made;
  }
  function figure(value) {
    if (value === null || value === undefined) { return "–"; }
    if (value === "inf") { return "∞"; }
    if (value >= 100) { return value.toFixed(0); }
    return String(Number(value.toPrecision(3)));
  }
  function percent(share) { return share === null || share === undefined ? "–" : Math.floor(share * 1000) / 10 + " %"; }
  function bounds(interval) {
    return interval ? "[" + Math.floor(100 * interval[0]) + ", " + Math.ceil(100 * interval[1]) + "]" : "";
  }

  /* ---- cards */
  var WORDS = {later: "after the run", met: "met", missed: "missed", undecided: "undecided"};
  function row(head, cells) {
    var line = document.createElement("tr"), name = text(line, "th", head);
    name.scope = "row";
    cells.forEach(function (cell) { text(line, "td", cell[0], "num " + (cell[1] || "")); });
    return line;
  }
  function card(arm, place) {
    var box = document.querySelector(".card[data-arm='" + place + "']");
    if (!box) { return; }
    var where = arm.total ? arm.state + (arm.pairs > 1 ? ", pair " + arm.pair + " of " + arm.pairs : "") + ", " + arm.done + " of " + arm.total +
      " requests" + (arm.failed ? ", " + arm.failed + " failed" : "") : arm.state;
    box.querySelector(".where").textContent = where;
    box.querySelector("progress").value = arm.total ? arm.done / arm.total : 0;
    var lines = arm.objectives.concat([arm.joint]).map(function (one) {
      var tone = one.word === "met" ? "good" : one.word === "missed" ? "bad" : "";
      return row(one.text, [[percent(one.share) + " " + bounds(one.interval)], [WORDS[one.word] || "", tone]]);
    });
    box.querySelector(".slo tbody").replaceChildren.apply(box.querySelector(".slo tbody"), lines);
    var spread = ["ttft", "tpot", "tbt"].map(function (name) {
      return row(name.toUpperCase(), arm.spreads[name].map(function (value) { return [figure(value)]; }));
    });
    box.querySelector(".spread tbody").replaceChildren.apply(box.querySelector(".spread tbody"), spread);
    var foot = [arm.ended + " measured requests ended"];
    if (arm.state === "running") { foot.push(arm.in_flight + " in flight"); }
    if (arm.dispatch_p99_ms !== null) { foot.push("dispatch lag P99 " + figure(arm.dispatch_p99_ms) + " ms"); }
    if (arm.client_p99_ms !== null) { foot.push("client lag P99 " + figure(arm.client_p99_ms) + " ms"); }
    foot.push(arm.late ? "INVALID: " + arm.late : "client in time");
    box.querySelector(".foot").textContent = foot.join(", ");
  }

  /* ---- charts */
  function find(place) {
    if (sources[place]) { return sources[place]; }
    var docs = (window.Bokeh || {}).documents || [];
    sources[place] = docs.length ? docs[0].get_model_by_name("arm-" + place) : null;
    return sources[place];
  }
  function stream(points) {
    Object.keys(points).forEach(function (place) {
      var source = find(place), fresh = {};
      Object.keys(points[place]).forEach(function (name) {
        fresh[name] = points[place][name].map(function (value) { return value === null ? NaN : value; });
      });
      if (source) { source.stream(fresh, MOST_POINTS); }
    });
  }

  function wipe() {
    // A chart that was first laid out without a width leaves a letter of its label behind; another height clears it.
    window.Bokeh.documents[0].roots().forEach(function (root) { root.height += 1; });
  }

  /* ---- what changes */
  function show(news) {
    byId("state").textContent = news.state;
    news.arms.forEach(card);
    stream(news.points);
    if (!since && news.next) { setTimeout(wipe, 400); }
    since = news.next;
    var pre = byId("events"), below = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 20;
    pre.textContent = news.events.map(function (one) { return one.at_s.toFixed(1).padStart(7) + " s  " + one.text; }).join("\n");
    if (below) { pre.scrollTop = pre.scrollHeight; }
    if (news.state === "running" || news.state === "stopping") { running(news); }
  }
  function running(news) {
    var now = news.arms.filter(function (arm) { return arm.state === "running"; })[0];
    byId("headline").textContent = news.state === "stopping" ? "Stopping: what was measured is being stored."
      : now ? now.name + " runs" + (now.pairs > 1 ? ", pair " + now.pair + " of " + now.pairs : "") + ": " + now.done + " of " + now.total + " requests have ended."
      : "Servers start, or a run is being read.";
    var reasons = byId("reasons");
    reasons.hidden = !news.reasons.length;
    reasons.textContent = news.reasons.length ? "It will be INVALID: " + news.reasons.join("; ") : "";
    byId("stop").disabled = news.state === "stopping";
    var rate = news.rate, input = byId("new-rate");
    byId("rate-now").textContent = rate.now === null ? "" : "(" + figure(rate.now) + " req/s now)";
    byId("rate-go").disabled = input.disabled = !rate.editable || rate.now === null || news.state === "stopping";
  }
  function say(words) { byId("said").textContent = words; }

  function ask() {
    if (asking) { return; }
    asking = true;
    fetch("/pdbench/live.json?since=" + since, {headers: {Accept: "application/json"}, redirect: "error"})
      .then(function (answer) {
        if (answer.status === 401) { location.reload(); }
        if (!answer.ok) { throw new Error("HTTP " + answer.status); }
        return answer.json();
      })
      .then(function (news) {
        if (news.number !== number || (news.state === "stopped") !== (state === "stopped")) { location.reload(); return; }
        if (byId("said").dataset.away) { delete byId("said").dataset.away; say(""); }
        if (news.arms) { show(news); }
      })
      .catch(function (error) {
        byId("said").dataset.away = "1";
        say("pdbench web does not answer (" + error.message + ").");
      })
      .finally(function () { asking = false; });
  }
  function post(path, values) {
    var asked = {method: "POST", body: new URLSearchParams(values), headers: {Accept: "application/json"}, redirect: "error"};
    return fetch(path, asked).then(function (answer) {
      if (answer.status === 401) { location.reload(); }
      var json = (answer.headers.get("Content-Type") || "").indexOf("application/json") === 0;
      if (answer.ok && json) { return answer.json(); }
      return answer.text().then(function (words) {
        throw new Error("HTTP " + answer.status + (json ? "" : ", " + words.slice(0, 200)));
      });
    });
  }
  function tell(answer, otherwise) {
    delete byId("said").dataset.away;
    say(answer.success ? "" : answer.message || otherwise);
  }
  function failed(what) {
    return function (error) {
      delete byId("said").dataset.away;
      say(what + " (" + error.message + ").");
    };
  }
  if (byId("stop")) {
    byId("stop").addEventListener("click", function () {
      byId("stop").disabled = true;
      post("/pdbench/stop", {}).then(function (answer) {
        tell(answer, "There is nothing to stop.");
        ask();
      }).catch(function (error) {
        byId("stop").disabled = false;
        failed("It was not stopped")(error);
      });
    });
    byId("rate").addEventListener("submit", function (event) {
      event.preventDefault();
      post("/pdbench/rate", {rate: byId("new-rate").value}).then(function (answer) {
        tell(answer, "The rate was not edited.");
        if (answer.success) { byId("new-rate").value = ""; }
        ask();
      }).catch(failed("The rate was not edited"));
    });
  }
  var tries = 0;
  (function begin() {
    // The charts must be there before points are streamed into them.
    if (number && !((window.Bokeh || {}).documents || []).length && tries++ < 400) { setTimeout(begin, 25); return; }
    ask();
    setInterval(ask, 1000);
  })();
})();
