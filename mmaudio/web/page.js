// Cards of jobs, the newest first; props.value lists {id, html}, the oldest first. A card stays as it is: it may be playing.
const list = element.querySelector(".jobs");

function show() {
  const jobs = props.value || [];
  const wanted = new Set(jobs.map((job) => job.id));
  for (const card of [...list.children]) if (!wanted.has(card.dataset.job)) card.remove();
  const there = new Set([...list.children].map((card) => card.dataset.job));
  for (const job of jobs) if (!there.has(job.id)) list.insertAdjacentHTML("afterbegin", job.html);
}

function follow(player) {
  const head = player.closest(".take").querySelector(".playhead");
  head.style.left = 100 * (player.currentTime / player.duration || 0) + "%";
  if (!player.paused && player.isConnected) requestAnimationFrame(() => follow(player));
}

// Media events do not bubble, but they can be caught on their way down.
element.addEventListener("play", (event) => {
  for (const player of element.querySelectorAll("video, audio")) if (player !== event.target) player.pause();
  follow(event.target);
}, true);
for (const name of ["seeked", "ended"]) element.addEventListener(name, (event) => follow(event.target), true);

element.addEventListener("click", (event) => {
  const timeline = event.target.closest(".timeline");
  if (timeline) {
    const player = timeline.closest(".take").querySelector("video, audio");
    const box = timeline.getBoundingClientRect();
    player.currentTime = ((event.clientX - box.left) / box.width) * player.duration;
  }
  const button = event.target.closest(".again");
  if (button) trigger("again", { job: button.closest(".job").dataset.job, take: Number(button.dataset.take) });
});

watch("value", show);
show();
