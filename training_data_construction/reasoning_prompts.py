"""The teacher's prompts: the task, the worked examples, and the reminder after an answer that was not accepted.

The images show the targets' boxes in red. The student never sees these boxes, so the teacher must not mention them.
"""

from __future__ import annotations

from collections.abc import Sequence

PROMPT = """\
You see {count} frames of one video; the time of each frame, in seconds, stands before it. Somebody described a target \
in this video:

    {expression}

The target, one object or several, is outlined in red on every frame where it can be seen. The outline is a private \
aid for you: reason as if it were not there, from what the video itself shows.

The frame at {keyframe} seconds is the keyframe. Explain how a careful viewer arrives at it and at the target, in \
exactly three steps:

Step 1: what happens in the video, over all frames.
Step 2: why the frame at {keyframe} seconds is the keyframe, the one that shows the described target best. Name its \
time, {keyframe}.
Step 3: what the target does in that frame, what it looks like, and where in the picture it is.

Rules:
- Begin each step with "Step 1:", "Step 2:" and "Step 3:", in plain text, with nothing before the first and nothing \
after the third.
- Keep {keyframe} as the keyframe; propose no other.
- Never mention outlines, boxes, rectangles, marks or the colour in which they are drawn.
- At most 60 words a step.
"""

ABSENT_PROMPT = """\
You see {count} frames of one video; the time of each frame, in seconds, stands before it. Somebody described a target \
that is NOT in this video:

    {expression}

Explain how a careful viewer finds out that nothing in the video fits the description, in exactly three steps:

Step 1: what happens in the video, over all frames.
Step 2: take the frame at {keyframe} seconds as the keyframe, and say what it shows that comes closest to the \
description. Name its time, {keyframe}.
Step 3: which part of the description nothing in the video fulfils, so that no object is to be located.

Rules:
- Begin each step with "Step 1:", "Step 2:" and "Step 3:", in plain text, with nothing before the first and nothing \
after the third.
- Keep {keyframe} as the keyframe; propose no other.
- At most 60 words a step.
"""

WORKED_EXAMPLES = (
    """\
Description: the dog that reaches the ball first
Keyframe: 12
Step 1: Two dogs, a brown one and a spotted one, wait beside a man in a park. He throws a ball over the grass, both \
dogs chase it, and the spotted one arrives ahead and carries it back.
Step 2: Who is first is settled at 12 seconds: there the spotted dog lowers its head over the ball while the brown one \
is still a few steps behind. The dog is large and unobstructed, so 12 is the keyframe.
Step 3: At 12 seconds the spotted dog crouches in the lower left of the picture, its front legs spread and its nose at \
the ball, facing right.
""",
    """\
Description: what keeps the rain off the two women
Keyframe: 5
Step 1: Two women leave a shop in heavy rain. One of them opens a green umbrella at the door, and they walk along the \
pavement together beneath it until they get into a taxi.
Step 2: Only an open umbrella keeps rain off. At 5 seconds it is fully open and nothing hides it, whereas earlier it \
is folded and later the taxi covers half of it; hence 5 is the keyframe.
Step 3: At 5 seconds the green umbrella is held above both heads in the upper middle of the picture, tilted slightly \
to the right against the wind.
""",
    """\
Description: the cyclists who are overtaken by the bus
Keyframe: 30
Step 1: The camera looks down on a road. Three cyclists ride one behind the other on the right; a bus comes from \
behind, moves over and passes two of them before it stops at a junction.
Step 2: The description needs the riders whom the bus has passed. At 30 seconds the bus is level with the middle rider \
and the last one is already behind it, both clearly visible, which makes 30 the keyframe.
Step 3: At 30 seconds both riders are on the right edge of the road: one in a white jersey near the centre of the \
picture, one in black below, close to the lower right corner, both leaning forward.
""",
)

ABSENT_EXAMPLES = (
    """\
Description: the cat that jumps onto the sofa
Keyframe: 8
Step 1: In a living room a child builds a tower of blocks on the carpet. A small dog walks in, looks at the tower and \
lies down beside the sofa.
Step 2: The closest thing to the description appears at 8 seconds, the keyframe, where the dog stands right in front \
of the sofa.
Step 3: The animal is a dog, it stays on the floor, and no cat comes into view in any frame. Nothing fits the \
description, so no object is to be located.
""",
    """\
Description: the red car that turns left at the crossing
Keyframe: 3
Step 1: A quiet crossing in a village: a white van passes straight through, then a tractor follows, and a man walks \
his bicycle over the road.
Step 2: At 3 seconds, the keyframe, the white van is in the middle of the crossing, the only time that a car-like \
vehicle is near.
Step 3: The van is white and goes straight on; no red car is seen and nothing turns left. Nothing fits the \
description, so no object is to be located.
""",
    """\
Description: the player who scores with the head
Keyframe: 21
Step 1: Boys play football on a gravel pitch. They pass the ball along the ground, the goalkeeper catches one weak \
shot and throws the ball back.
Step 2: At 21 seconds, the keyframe, the ball is closest to the goal, just as the goalkeeper holds it with both hands.
Step 3: The ball never crosses the line and nobody plays it with the head. Nothing fits the description, so no object \
is to be located.
""",
)

EXAMPLE_HEADING = "A worked example, from another video:\n\n"

REMINDER = (
    "An earlier answer to this question was not accepted: {reason}. Answer afresh, and do not refer to "
    "the earlier answer.\n"
)


def build_reasoning_content(
    expression: str,
    timestamps: Sequence[int],
    keyframe_timestamp: int,
    pictures: Sequence[str],
    example: int,
    absent: bool = False,
    reason: str | None = None,
) -> list[dict]:
    """The user turn of one request, as the `content` of an OpenAI chat message.

    Args:
        expression: the description of the target.
        timestamps: of the frames, in seconds, as in the student's prompt.
        keyframe_timestamp: one of `timestamps`.
        pictures: per frame an image URL (`data:image/jpeg;base64,...`), in the order of `timestamps`.
        example: index of the worked example, 0 to 2.
        absent: the target is not in the video.
        reason: why the previous answer was not accepted; None at the first request.
    """
    content: list[dict] = []
    for timestamp, picture in zip(timestamps, pictures, strict=True):
        content.append({"type": "text", "text": f"[{timestamp} s]"})
        content.append({"type": "image_url", "image_url": {"url": picture}})
    task = (ABSENT_PROMPT if absent else PROMPT).format(
        count=len(timestamps), expression=expression, keyframe=keyframe_timestamp
    )
    text = task + "\n" + EXAMPLE_HEADING + (ABSENT_EXAMPLES if absent else WORKED_EXAMPLES)[example]
    if reason is not None:
        text += "\n" + REMINDER.format(reason=reason)
    return [*content, {"type": "text", "text": text}]
