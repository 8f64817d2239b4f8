/**
 * Shows one run: a timeline that can be moved and zoomed, and a list of its events. It draws only what is visible, so that
 * it stays quick with hundreds of thousands of events. All words of the run are set as text.
 */
;(() => {
  const byId = (id) => document.getElementById(id)
  const run = JSON.parse(byId("run").textContent)
  const STATE = run.kinds.indexOf("state")
  const CALL = run.kinds.indexOf("call")
  const LABEL_WIDTH = 220
  const AXIS_HEIGHT = 22
  const ROW_HEIGHT = 11
  const STATE_HEIGHT = 14
  const ROWS_MAX = 5
  const LANE_GAP = 5
  const LIST_ROW = 18
  const SPAN_MIN = 5

  const events = run.events.map(([kind, lane, text, at, duration, outcome], index) => ({
    index,
    kind,
    lane,
    text: run.texts[text],
    at,
    until: duration < 0 ? at : at + duration,
    isOpen: kind === CALL && duration < 0,
    outcome: run.texts[outcome],
    row: 0
  }))
  // Some room after the last event, so that a violation, which ends a run, is not on the edge.
  const end = Math.ceil(Math.max(run.virtualMillis, 1) * 1.01)

  const two = (n) => String(n).padStart(2, "0")
  const time = (millis) => {
    const seconds = Math.floor(millis / 1000)
    const fraction = String(Math.floor(millis % 1000)).padStart(3, "0")
    return `${Math.floor(seconds / 3600)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}.${fraction}`
  }
  const isBad = ({ kind, outcome }) => kind === CALL && outcome !== ""
  const classOf = (event) => (isBad(event) ? "bad" : run.kinds[event.kind])
  const wordsOf = (event) => {
    if (event.kind === STATE) return event.text === "" ? "(nothing any more)" : event.text
    if (event.kind !== CALL) return event.text
    const took = event.isOpen ? "" : ` (${event.until - event.at} ms)`
    const became = event.outcome === "" ? (event.isOpen ? " -> no answer" : "") : ` -> ${event.outcome}`
    return `${event.text}${took}${became}`
  }
  const element = (name, text, className) => {
    const made = document.createElement(name)
    if (text !== undefined) made.textContent = text
    if (className !== undefined) made.className = className
    return made
  }

  // ---- lanes: states in one band, calls stacked below each other where they overlap

  const lanes = run.lanes.map((name) => ({ name, states: [], points: [], rows: 0, longest: 0, top: 0, height: 0 }))
  for (const event of events) {
    const lane = lanes[event.lane]
    if (event.kind === STATE) {
      const before = lane.states.at(-1)
      if (before !== undefined) before.until = event.at
      event.until = end
      lane.states.push(event)
    } else {
      lane.points.push(event)
      lane.longest = Math.max(lane.longest, event.until - event.at)
    }
  }
  for (const lane of lanes) {
    const free = []
    for (const event of lane.points) {
      let row = free.findIndex((at) => at <= event.at)
      if (row < 0) row = free.length < ROWS_MAX ? free.length : ROWS_MAX - 1
      free[row] = Math.max(free[row] ?? 0, event.until + 1)
      event.row = row
    }
    lane.rows = free.length
  }
  const inChain = new Set(run.chain.map((index) => events[index].lane))
  let height = AXIS_HEIGHT
  const layOut = (onlyChain) => {
    height = AXIS_HEIGHT
    for (const [index, lane] of lanes.entries()) {
      lane.isShown = !onlyChain || inChain.has(index)
      lane.top = height
      lane.stateHeight = lane.states.length > 0 ? STATE_HEIGHT : 0
      const rowsHeight = Math.max(lane.rows * ROW_HEIGHT, lane.stateHeight > 0 ? 0 : ROW_HEIGHT)
      lane.height = lane.isShown ? lane.stateHeight + rowsHeight + LANE_GAP : 0
      height += lane.height
    }
  }
  const onlyChain = byId("only-chain")
  onlyChain.checked = run.chain.length > 0
  onlyChain.parentElement.hidden = run.chain.length === 0
  layOut(onlyChain.checked)

  // ---- the head

  byId("title").textContent = `Simulation "${run.scenario}", seed ${run.seed}: ${run.description}`
  const verdict = byId("verdict")
  verdict.textContent =
    run.violation === null
      ? `Every promise held, in ${time(end)} of virtual time and ${run.steps} steps.`
      : `Broken at ${time(run.violation.atMillis)}: ${run.violation.promise}: ${run.violation.seen}`
  verdict.classList.toggle("broken", run.violation !== null)
  byId("command").textContent = run.command
  byId("copy").addEventListener("click", () => navigator.clipboard?.writeText(run.command))
  const table = (caption, rows) => {
    const made = element("table")
    made.append(element("caption", caption))
    for (const [name, value] of rows) {
      const row = element("tr")
      row.append(element("td", name), element("td", String(value)))
      made.append(row)
    }
    return made
  }
  byId("drawn").append(
    table("fault rates drawn (chance per call, or mean interval in ms or calls)", run.rates),
    table("faults that struck", run.faults),
    table("what happened", [...run.summary, ["digest", run.digest.slice(0, 32)]])
  )

  // ---- the view

  const canvas = byId("canvas")
  const frame = byId("frame")
  const pen = canvas.getContext("2d")
  const view = { from: 0, to: end }
  let selected
  let width = 0
  let isDue = false

  const COLORS = {
    state: "#bcd4f0",
    other: "#d3e6d0",
    call: "#9aa7b6",
    bad: "#d32f2f",
    event: "#8a6fb0",
    fault: "#e07b00",
    violation: "#c2185b"
  }
  const xOf = (millis) => LABEL_WIDTH + ((millis - view.from) / (view.to - view.from)) * (width - LABEL_WIDTH)
  const millisOf = (x) => view.from + ((x - LABEL_WIDTH) / (width - LABEL_WIDTH)) * (view.to - view.from)

  /** The first of `items`, which are in order of time, that is not before. */
  const firstFrom = (items, millis) => {
    let low = 0
    let high = items.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (items[middle].at < millis) low = middle + 1
      else high = middle
    }
    return low
  }

  const STEPS = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 3e4, 6e4, 12e4, 3e5, 6e5, 18e5, 36e5, 72e5, 216e5, 864e5
  ]

  const drawAxis = (top) => {
    pen.fillStyle = "#f4f6f9"
    pen.fillRect(0, top, width, AXIS_HEIGHT)
    const step = STEPS.find((it) => (it / (view.to - view.from)) * (width - LABEL_WIDTH) >= 90) ?? STEPS.at(-1)
    pen.fillStyle = "#44505f"
    for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
      const x = xOf(at)
      pen.fillRect(x, top + AXIS_HEIGHT - 5, 1, 5)
      pen.fillText(step < 1000 ? time(at) : time(at).slice(0, -4), x + 3, top + 13)
    }
  }

  const drawStates = (lane) => {
    let drawnTo = -1
    const start = Math.max(0, firstFrom(lane.states, view.from) - 1)
    for (let index = start; index < lane.states.length; index++) {
      const state = lane.states[index]
      if (state.at > view.to) break
      const from = Math.max(LABEL_WIDTH, xOf(state.at))
      const to = Math.min(width, xOf(state.until))
      if (state.text === "" || to < LABEL_WIDTH || (to - from < 1 && Math.floor(from) === drawnTo)) continue
      drawnTo = Math.floor(from)
      pen.fillStyle = index % 2 === 0 ? COLORS.state : COLORS.other
      pen.fillRect(from, lane.top, Math.max(1, to - from - 1), STATE_HEIGHT - 1)
      if (to - from > 24) {
        pen.save()
        pen.beginPath()
        pen.rect(from, lane.top, to - from - 2, STATE_HEIGHT)
        pen.clip()
        pen.fillStyle = "#1d2430"
        pen.fillText(state.text, from + 3, lane.top + 10)
        pen.restore()
      }
    }
  }

  const drawPoints = (lane) => {
    const base = lane.top + lane.stateHeight
    const drawn = new Map()
    for (let index = firstFrom(lane.points, view.from - lane.longest); index < lane.points.length; index++) {
      const event = lane.points[index]
      if (event.at > view.to) break
      const from = xOf(event.at)
      const to = xOf(event.until)
      if (to < LABEL_WIDTH) continue
      const kind = classOf(event)
      const wide = kind === "call" || kind === "bad" ? Math.max(1.5, to - from) : 3
      // What falls on a pixel that has this colour already would not be seen.
      const key = kind.length * 16 + event.row
      if (wide < 4 && drawn.get(key) === Math.floor(from)) continue
      drawn.set(key, Math.floor(from))
      const left = Math.max(LABEL_WIDTH, from)
      pen.fillStyle = COLORS[kind]
      pen.fillRect(left, base + event.row * ROW_HEIGHT, from + wide - left, ROW_HEIGHT - 2)
      if (wide > 60) {
        pen.save()
        pen.beginPath()
        pen.rect(left, base + event.row * ROW_HEIGHT, from + wide - left - 2, ROW_HEIGHT - 2)
        pen.clip()
        pen.fillStyle = "#fff"
        pen.fillText(event.text, left + 2, base + event.row * ROW_HEIGHT + 8)
        pen.restore()
      }
    }
  }

  const mark = (event, color) => {
    const x = xOf(event.at)
    if (x < LABEL_WIDTH || x > width) return
    const lane = lanes[event.lane]
    if (!lane.isShown) return
    pen.fillStyle = color
    pen.globalAlpha = 0.5
    pen.fillRect(x, 0, 1, height)
    pen.globalAlpha = 1
    pen.strokeStyle = color
    pen.lineWidth = 2
    const isState = event.kind === STATE
    const top = isState ? lane.top : lane.top + lane.stateHeight + event.row * ROW_HEIGHT
    const wide = Math.min(width - x, Math.max(6, xOf(event.until) - x))
    pen.strokeRect(x - 1, top - 1, wide + 2, (isState ? STATE_HEIGHT : ROW_HEIGHT) + 1)
  }

  const draw = () => {
    isDue = false
    const scale = window.devicePixelRatio || 1
    width = frame.clientWidth
    canvas.width = Math.round(width * scale)
    canvas.height = Math.round(height * scale)
    canvas.style.height = `${height}px`
    pen.setTransform(scale, 0, 0, scale, 0, 0)
    pen.font = "10px system-ui, 'DejaVu Sans', sans-serif"
    const top = frame.scrollTop
    const bottom = top + frame.clientHeight
    lanes.forEach((lane, index) => {
      if (!lane.isShown || lane.top > bottom || lane.top + lane.height < top) return
      pen.fillStyle = index % 2 === 0 ? "#fff" : "#f8fafc"
      pen.fillRect(0, lane.top - 2, width, lane.height)
      drawStates(lane)
      drawPoints(lane)
      pen.fillStyle = index % 2 === 0 ? "#fff" : "#f8fafc"
      pen.fillRect(0, lane.top - 2, LABEL_WIDTH, lane.height)
      pen.fillStyle = "#1d2430"
      pen.fillText(lane.name, 6, lane.top + 10, LABEL_WIDTH - 12)
    })
    for (const index of run.chain) if (index !== run.chain.at(-1)) outline(events[index])
    const violation = events[run.chain.at(-1)]
    if (violation !== undefined) mark(violation, COLORS.violation)
    if (selected !== undefined) mark(selected, "#1565c0")
    drawAxis(top)
    byId("span").textContent = `${time(view.from)} to ${time(view.to)}`
  }
  /** Of the chain: a small foot in the violation's colour. */
  const outline = (event) => {
    const x = xOf(event.at)
    if (x < LABEL_WIDTH || x > width) return
    const lane = lanes[event.lane]
    if (!lane.isShown) return
    const top =
      event.kind === STATE
        ? lane.top + STATE_HEIGHT - 2
        : lane.top + lane.stateHeight + (event.row + 1) * ROW_HEIGHT - 2
    pen.fillStyle = COLORS.violation
    pen.fillRect(x - 1, top, 7, 2)
  }
  const redraw = () => {
    if (isDue) return
    isDue = true
    requestAnimationFrame(() => {
      draw()
      if (byId("only-visible").checked) filter()
    })
  }

  const look = (from, to) => {
    const span = Math.min(end, Math.max(SPAN_MIN, to - from))
    view.from = Math.min(Math.max(0, from), Math.max(0, end - span))
    view.to = view.from + span
    redraw()
  }
  const zoom = (factor, around) => {
    const middle = around ?? (view.from + view.to) / 2
    const span = Math.max(SPAN_MIN, (view.to - view.from) * factor)
    const share = (middle - view.from) / (view.to - view.from)
    look(middle - share * span, middle + (1 - share) * span)
  }
  const move = (share) => {
    const by = (view.to - view.from) * share
    look(view.from + by, view.to + by)
  }

  const select = (event, doLook) => {
    selected = event
    byId("selected").textContent = `${time(event.at)}  ${run.lanes[event.lane]}  ${wordsOf(event)}`
    if (doLook) {
      if (event.at < view.from || event.at > view.to) {
        const span = view.to - view.from
        look(event.at - span / 2, event.at + span / 2)
      }
      if (!lanes[event.lane].isShown) {
        onlyChain.checked = false
        layOut(false)
      }
      const { top, height: tall } = lanes[event.lane]
      if (top < frame.scrollTop + AXIS_HEIGHT || top + tall > frame.scrollTop + frame.clientHeight) {
        frame.scrollTop = Math.max(0, top - frame.clientHeight / 2)
      }
    }
    const place = shown.indexOf(event)
    if (place >= 0) {
      const list = byId("list")
      const y = place * LIST_ROW
      if (y < list.scrollTop || y > list.scrollTop + list.clientHeight - LIST_ROW)
        list.scrollTop = y - list.clientHeight / 2
    }
    showRows()
    redraw()
  }

  /** What is drawn at a point: of several, the last, which lies above. */
  const at = (x, y) => {
    if (x < LABEL_WIDTH) return undefined
    const lane = lanes.find((it) => it.isShown && y >= it.top - 2 && y < it.top + it.height - 2)
    if (lane === undefined) return undefined
    const millis = millisOf(x)
    if (y < lane.top + lane.stateHeight) {
      const state = lane.states[firstFrom(lane.states, millis + 0.001) - 1]
      return state === undefined || state.text === "" ? undefined : state
    }
    const row = Math.floor((y - lane.top - lane.stateHeight) / ROW_HEIGHT)
    const slack = millisOf(x + 4) - millis
    let best
    for (let index = firstFrom(lane.points, millis - slack - lane.longest); index < lane.points.length; index++) {
      const event = lane.points[index]
      if (event.at > millis + slack) break
      if (event.row === row && event.until >= millis - slack) {
        const away = Math.max(0, event.at - millis, millis - event.until)
        if (best === undefined || away <= best.away) best = { event, away }
      }
    }
    return best?.event
  }

  const place = (mouse) => {
    const box = canvas.getBoundingClientRect()
    return { x: mouse.clientX - box.left, y: mouse.clientY - box.top }
  }
  const tip = byId("tip")
  let drag
  canvas.addEventListener(
    "wheel",
    (wheel) => {
      if (wheel.shiftKey) return
      wheel.preventDefault()
      if (Math.abs(wheel.deltaX) > Math.abs(wheel.deltaY)) move(wheel.deltaX / width)
      else zoom(1.0015 ** wheel.deltaY, millisOf(Math.max(LABEL_WIDTH, place(wheel).x)))
    },
    { passive: false }
  )
  canvas.addEventListener("pointerdown", (pointer) => {
    drag = { x: pointer.clientX, from: view.from, to: view.to, hasMoved: false }
    canvas.setPointerCapture(pointer.pointerId)
  })
  canvas.addEventListener("pointermove", (pointer) => {
    if (drag !== undefined) {
      const by = ((drag.x - pointer.clientX) / (width - LABEL_WIDTH)) * (drag.to - drag.from)
      drag.hasMoved ||= Math.abs(drag.x - pointer.clientX) > 3
      if (drag.hasMoved) look(drag.from + by, drag.to + by)
      return
    }
    const { x, y } = place(pointer)
    const event = at(x, y)
    tip.hidden = event === undefined
    if (event === undefined) return
    tip.textContent = `${time(event.at)} ${run.lanes[event.lane]}\n${wordsOf(event)}`
    tip.style.left = `${Math.min(pointer.clientX + 12, window.innerWidth - tip.offsetWidth - 8)}px`
    tip.style.top = `${pointer.clientY + 14}px`
  })
  canvas.addEventListener("pointerup", (pointer) => {
    const wasDrag = drag?.hasMoved
    drag = undefined
    const { x, y } = place(pointer)
    const event = wasDrag ? undefined : at(x, y)
    if (event !== undefined) select(event, false)
  })
  canvas.addEventListener("pointerleave", () => {
    tip.hidden = true
  })
  canvas.addEventListener("keydown", (key) => {
    const act = {
      ArrowLeft: () => move(-0.2),
      ArrowRight: () => move(0.2),
      "+": () => zoom(0.5),
      "-": () => zoom(2)
    }[key.key]
    if (act === undefined) return
    key.preventDefault()
    act()
  })
  byId("zoom-in").addEventListener("click", () => zoom(0.5))
  byId("zoom-out").addEventListener("click", () => zoom(2))
  byId("all").addEventListener("click", () => look(0, end))
  const violationButton = byId("violation")
  violationButton.hidden = run.chain.length === 0
  const lookAtViolation = () => {
    const last = events[run.chain.at(-1)]
    const first = events[run.chain[0]]
    const span = Math.max(SPAN_MIN, (last.at - first.at) * 1.15)
    look(last.at - span * 0.9, last.at + span * 0.1)
  }
  violationButton.addEventListener("click", lookAtViolation)
  onlyChain.addEventListener("input", () => {
    layOut(onlyChain.checked)
    redraw()
  })
  frame.addEventListener("scroll", redraw)
  window.addEventListener("resize", redraw)

  // ---- the list: as many rows as fit, whatever its length

  let shown = events
  const list = byId("list")
  const inner = byId("list-inner")
  const rowOf = (event, name) => {
    const row = element(name, undefined, `row is-${classOf(event)}${event === selected ? " is-selected" : ""}`)
    const words = element("span", wordsOf(event))
    words.title = wordsOf(event)
    row.append(element("span", time(event.at), "time"), element("span", run.lanes[event.lane], "lane"), words)
    row.addEventListener("click", () => select(event, true))
    return row
  }
  const showRows = () => {
    // First, so that the place in a list that has become shorter is one that it has.
    inner.style.height = `${shown.length * LIST_ROW}px`
    const first = Math.max(0, Math.floor(list.scrollTop / LIST_ROW) - 5)
    const last = Math.min(shown.length, first + Math.ceil(list.clientHeight / LIST_ROW) + 10)
    inner.replaceChildren(
      ...shown.slice(first, last).map((event, index) => {
        const row = rowOf(event, "div")
        row.style.top = `${(first + index) * LIST_ROW}px`
        return row
      })
    )
  }
  const option = (value, text) => {
    const made = element("option", text)
    made.value = value
    return made
  }
  byId("lane").append(option("", "every lane"), ...run.lanes.map((name, index) => option(String(index), name)))
  byId("kind").append(
    option("", "every kind"),
    ...run.kinds.map((name, index) => option(String(index), name)),
    option("bad", "calls that failed")
  )
  const filter = () => {
    const words = byId("filter")
      .value.toLowerCase()
      .split(/\s+/u)
      .filter((word) => word !== "")
    const lane = byId("lane").value
    const kind = byId("kind").value
    const onlyVisible = byId("only-visible").checked
    shown = events.filter((event) => {
      if (lane !== "" && event.lane !== Number(lane)) return false
      if (kind === "bad" ? !isBad(event) : kind !== "" && event.kind !== Number(kind)) return false
      if (onlyVisible && (event.at > view.to || Math.max(event.at, event.until) < view.from)) return false
      if (words.length === 0) return true
      const text = `${run.lanes[event.lane]} ${event.text} ${event.outcome}`.toLowerCase()
      return words.every((word) => text.includes(word))
    })
    byId("count").textContent = `${shown.length} of ${events.length}`
    showRows()
  }
  for (const id of ["filter", "lane", "kind", "only-visible"]) byId(id).addEventListener("input", filter)
  list.addEventListener("scroll", showRows)

  // ---- what led to it

  if (run.chain.length > 0) {
    byId("chain-section").hidden = false
    const chain = byId("chain")
    for (const index of run.chain) {
      const item = rowOf(events[index], "li")
      item.classList.remove("row")
      chain.append(item)
    }
    chain.scrollTop = chain.scrollHeight
    lookAtViolation()
    byId("selected").textContent = `${time(run.violation.atMillis)}  ${run.violation.promise}: ${run.violation.seen}`
  }
  filter()
  draw()
  if (run.chain.length > 0) list.scrollTop = Math.max(0, run.chain.at(-1) * LIST_ROW - list.clientHeight / 2)
})()
