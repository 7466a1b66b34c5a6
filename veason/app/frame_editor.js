// The frame that is edited. A drag on the picture draws a box, a drag of a corner or a side changes that side of a box,
// a drag of the middle moves it, a click is a point. Coordinates go out as fractions of the picture's width and height.
const CLICK = 4; // pixels of the screen: a shorter way is a click
const GRIP = 9; // pixels of the screen around a corner, a side or a middle
let drag = null;

const picture = () => element.querySelector('img');
const band = () => element.querySelector('.band');
const limit = value => Math.min(1, Math.max(0, value));

function place(event) {
    const area = picture().getBoundingClientRect();
    return [limit((event.clientX - area.left) / area.width), limit((event.clientY - area.top) / area.height)];
}

// The object whose box is taken hold of, and which of x1, y1, x2, y2 follow the pointer; null: none.
function gripAt([x, y]) {
    const area = picture().getBoundingClientRect();
    const found = [];
    for (const { object, box } of props.value.boxes) {
        const [width, height] = [(box[2] - box[0]) * area.width, (box[3] - box[1]) * area.height];
        const reach = Math.max(3, Math.min(GRIP, width / 4, height / 4));
        const [right, down] = [x * area.width, y * area.height];
        const far = [
            Math.abs(right - box[0] * area.width), Math.abs(down - box[1] * area.height),
            Math.abs(right - box[2] * area.width), Math.abs(down - box[3] * area.height),
        ];
        const within = [
            right > box[0] * area.width - reach && right < box[2] * area.width + reach,
            down > box[1] * area.height - reach && down < box[3] * area.height + reach,
        ];
        const sides = far.map((distance, side) => distance <= reach && within[1 - (side % 2)]);
        const middle = [(box[0] + box[2]) / 2 * area.width, (box[1] + box[3]) / 2 * area.height];
        if (sides.some(Boolean)) {
            found.push({ object, box, sides });
        } else if (Math.hypot(right - middle[0], down - middle[1]) <= reach) {
            found.push({ object, box, sides: [true, true, true, true] });
        }
    }
    return found.pop() ?? null; // the upper one
}

function cursor(grip) {
    if (grip === null) return 'crosshair';
    const [x1, y1, x2, y2] = grip.sides;
    if (x1 && x2) return 'move';
    if ((x1 && y1) || (x2 && y2)) return 'nwse-resize';
    if ((x2 && y1) || (x1 && y2)) return 'nesw-resize';
    return x1 || x2 ? 'ew-resize' : 'ns-resize';
}

// The box that is drawn or changed, x1, y1, x2, y2.
function dragged([x, y]) {
    const [left, top] = drag.start;
    if (drag.grip === null) return [Math.min(left, x), Math.min(top, y), Math.max(left, x), Math.max(top, y)];
    const { box, sides } = drag.grip;
    let way = [x - left, y - top];
    if (sides.every(Boolean)) { // moved as it is, within the picture
        way = way.map((step, axis) => Math.min(1 - box[axis + 2], Math.max(-box[axis], step)));
    }
    const [x1, y1, x2, y2] = box.map((side, index) => (sides[index] ? limit(side + way[index % 2]) : side));
    return [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];
}

function showBand(box) {
    const percent = value => `${100 * value}%`;
    Object.assign(band().style, {
        display: 'block', left: percent(box[0]), top: percent(box[1]),
        width: percent(box[2] - box[0]), height: percent(box[3] - box[1]),
    });
}

function hideBand() {
    const shown = band();
    if (shown) shown.style.display = 'none';
}

function cancel() {
    drag = null;
    hideBand();
}

element.addEventListener('pointerdown', event => {
    if (event.target !== picture() || !event.isPrimary || event.button !== 0) return;
    event.preventDefault();
    hideBand();
    const start = place(event);
    drag = { start, from: [event.clientX, event.clientY], grip: gripAt(start), far: false };
    element.setPointerCapture(event.pointerId);
});

element.addEventListener('pointermove', event => {
    if (drag === null) {
        if (event.target === picture()) picture().style.cursor = cursor(gripAt(place(event)));
        return;
    }
    drag.far ||= Math.hypot(event.clientX - drag.from[0], event.clientY - drag.from[1]) >= CLICK;
    if (drag.far) showBand(dragged(place(event)));
});

element.addEventListener('pointerup', event => {
    if (drag === null) return;
    const { far, grip, start } = drag;
    if (far) {
        trigger('box', { box: dragged(place(event)), object: grip === null ? null : grip.object });
    } else {
        trigger('point', { place: start });
    }
    drag = null; // the band stays until the picture with the box arrives
});

element.addEventListener('pointercancel', cancel);
element.addEventListener('click', event => {
    if (!event.target.matches('.whole')) return;
    if (document.fullscreenElement) document.exitFullscreen();
    else element.querySelector('.frame').requestFullscreen();
});
document.addEventListener('keydown', event => {
    if (event.key === 'Escape') cancel();
});
watch('value', () => {
    if (drag === null) hideBand();
});
