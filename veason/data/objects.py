"""The objects of a folder in the ReVOS form, as samples: for data that has masks and no expressions yet."""

from __future__ import annotations

from typing import Any

from veason.data.revos import ReVOS
from veason.errors import DataError


class ReVOSObjects(ReVOS):
    """One sample an object, whose exp_id is the object's id and whose expression is its category or number.

    The objects are those that `veason data import` lists for each video, or else those that its expressions name.
    """

    name = "revos_objects"

    def read_videos(self) -> dict[str, dict[str, Any]]:
        return {
            video: {**meta, "expressions": self._objects(video, meta)} for video, meta in super().read_videos().items()
        }

    def _objects(self, video: str, meta: dict[str, Any]) -> dict[str, dict[str, Any]]:
        listed: dict[str, Any] = meta.get("objects") or {}
        found = {name: (each["anno_id"], each.get("category")) for name, each in listed.items()}
        if not listed:
            for expression in meta.get("expressions", {}).values():
                for name, anno_id in zip(expression.get("obj_id", ()), expression.get("anno_id", ())):
                    found[str(name)] = (anno_id, None)
        if not found:
            raise DataError(f"{self.meta_path}: video {video} names no object")
        return {
            name: {"exp": category or f"object {name}", "obj_id": [name], "anno_id": [anno_id], "type_id": 0}
            for name, (anno_id, category) in found.items()
        }
