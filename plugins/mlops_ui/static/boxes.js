// Whatever is wide scrolls in a box of its own (class "box"). A box that does can be reached and scrolled by keyboard.

function mark() {
  for (const box of document.querySelectorAll(".box")) {
    const scrolls = box.scrollWidth > box.clientWidth;
    if (scrolls === box.hasAttribute("tabindex")) continue;
    for (const [name, value] of [["tabindex", "0"], ["role", "region"], ["aria-label", "wide content"]]) {
      if (scrolls) box.setAttribute(name, value);
      else box.removeAttribute(name);
    }
  }
}

let due = false;

function markSoon() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    mark();
  });
}

mark();
addEventListener("resize", markSoon);
new MutationObserver(markSoon).observe(document.body, { childList: true, subtree: true });

export {};
