"""The objects of a folder in the ReVOS form, as samples: for data that has masks and no expressions yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from veason.data.annotation import as_ids, as_mapping
from veason.data.revos import ReVOS
from veason.errors import DataError


class ReVOSObjects(ReVOS):
    """One sample an object, whose exp_id is the object's id and whose expression is its category or number.

    The objects are those that `veason data import` lists for each video, or else those that its expressions name.
    """

    name = "revos_objects"

    def read_videos(self) -> dict[str, dict[str, Any]]:
        found = {}
        for video, meta in super().read_videos().items():
            try:
                entry = as_mapping(meta, "its entry")
                found[video] = {**entry, "expressions": self._objects(entry)}
            except DataError as error:
                self.reject(video, video, f"{self.meta_path}: video {video}: {error}")
        return found

    def _objects(self, meta: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        found: dict[str, tuple[Any, Any]] = {}
        for name, value in as_mapping(meta.get("objects") or {}, "its list of objects").items():
            each = as_mapping(value, f"object {name}")
            found[name] = each.get("anno_id"), each.get("category")
        if not found:
            for exp_id, value in as_mapping(meta.get("expressions", {}), "its list of expressions").items():
                each = as_mapping(value, f"expression {exp_id}")
                names = as_ids(each.get("obj_id", []), f"obj_id of expression {exp_id}")
                ids = as_ids(each.get("anno_id", []), f"anno_id of expression {exp_id}")
                found |= {name: (anno_id, None) for name, anno_id in zip(names, ids)}
        if not found:
            raise DataError("it names no object")
        return {
            name: {"exp": category or f"object {name}", "obj_id": [name], "anno_id": [anno_id], "type_id": 0}
            for name, (anno_id, category) in found.items()
        }
