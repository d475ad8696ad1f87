"""A fake resctrl on real files that answers as the kernel does: to mkdir, rmdir and to writes of its control files.

Reading needs no fake: what the kernel would show stands in the files. Changing goes through `Calls`, the seam of
`noisegate.enforcement.kernel.resctrl`, because plain files take every write. Behaviour and texts are those of
fs/resctrl/{rdtgroup,ctrlmondata}.c in Linux 6.18 and of Documentation/filesystems/resctrl.rst; each function names its own.
Not there: pseudo-locking, assignable counters, I/O allocation, CPUs of groups.
"""

import errno
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

from noisegate.enforcement.kernel.resctrl import Calls

MAX_MIBPS = 0xFFFFFFFF


class FakeCache(NamedTuple):
    """A cache that the fake has; `info/<name>` shows these values."""

    ids: tuple[int, ...] = (0, 1)
    ways: int = 20
    min_bits: int = 1
    closids: int = 16
    shareable: int = 0
    sparse: bool = False


class FakeBandwidth(NamedTuple):
    """Memory bandwidth that the fake has. `most`: 100 on Intel (percents), 2048 on AMD (eighths of GB/s)."""

    ids: tuple[int, ...] = (0, 1)
    minimum: int = 10
    step: int = 10
    closids: int = 8
    most: int = 100


Resources = Mapping[str, FakeCache | FakeBandwidth]

INTEL: Resources = {"L3": FakeCache(), "MB": FakeBandwidth()}
"""A Xeon with 20 ways of L3 on two sockets, MBA in steps of 10 %."""
CDP: Resources = {"L3CODE": FakeCache(closids=8), "L3DATA": FakeCache(closids=8), "MB": FakeBandwidth()}
"""The same with `-o cdp`, which halves num_closids."""
L2: Resources = {"L2": FakeCache((0, 1, 4, 5), ways=8, closids=4)}
AMD: Resources = {
    "L3": FakeCache((0, 1, 8, 9), ways=16, min_bits=0, sparse=True),
    "MB": FakeBandwidth((0, 1, 8, 9), minimum=0, step=1, closids=16, most=2048),
    "SMBA": FakeBandwidth((0, 1, 8, 9), minimum=0, step=1, closids=16, most=2048),
}


class FakeResctrl(Calls):
    """The file system and the threads of a machine.

    Args:
        root: An empty directory; a file `mountinfo` is made beside it.
        resources: Its caches and bandwidths, by their names in schemata.
        options: Mount options, such as `cdp` or `mba_MBps`.
        threads: Ids of threads that run, all in the root group at first.
        rmids: How many groups can be measured (`info/L3_MON/num_rmids`), the root among them; 0: none.
        read_only: Whether it is mounted so.
    """

    def __init__(
        self,
        root: Path,
        resources: Resources = INTEL,
        options: tuple[str, ...] = (),
        threads: Iterable[int] = (1, 2, 3),
        rmids: int = 32,
        *,
        read_only: bool = False,
    ) -> None:
        self.root = root
        self.resources = resources
        self.software_controlled = "mba_MBps" in options
        self.rmids = rmids
        self.closids = {root: 0}
        self.calls: list[str] = []
        """Every change that was tried: `mkdir noisegate-gold`, `write noisegate-gold/schemata L3:0=f`."""
        self.mountinfo = root.parent / "mountinfo"
        self._group_of = dict.fromkeys(threads, root)
        flags = "ro" if read_only else "rw"
        self.mountinfo.write_text(
            "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
            f"43 22 0:38 / {root} {flags},relatime shared:19 - resctrl resctrl {','.join(('rw', *options))}\n"
        )
        root.mkdir(exist_ok=True)
        self._fill_info()
        self._fill_group(root)
        self._show(root, {name: dict.fromkeys(each.ids, self._default(each)) for name, each in resources.items()})
        self._say("ok\n")

    # What the machine does by itself.

    def fork(self, parent: int, thread: int) -> None:
        """A new thread begins in the group of its maker (resctrl_arch_set_closid_rmid is inherited with task_struct)."""
        self._group_of[thread] = self._group_of[parent]
        self._show_tasks()

    def end(self, thread: int) -> None:
        """A thread ends and is in no group any more."""
        del self._group_of[thread]
        self._show_tasks()

    # What the kernel answers.

    def mkdir(self, path: Path) -> None:
        """rdtgroup_mkdir: a control group below the root, a monitoring group below a mon_groups; else EPERM."""
        self.calls.append(f"mkdir {path.relative_to(self.root)}")
        if path.exists():
            raise _error(errno.EEXIST, path)
        self._say("ok\n")
        if path.parent.name == "mon_groups" and self.rmids and path.name != "mon_groups":
            self._take_rmid(path)
            path.mkdir()
            self._fill_group(path, control=False)
        elif path.parent == self.root:
            self._mkdir_control(path)
        else:
            raise _error(errno.EPERM, path)
        self._show_tasks()

    def rmdir(self, path: Path) -> None:
        """rdtgroup_rmdir: tasks go to the parent, monitoring groups below go with it; the root and info cannot."""
        self.calls.append(f"rmdir {path.relative_to(self.root)}")
        if not path.is_dir():
            raise _error(errno.ENOENT, path)
        if path not in self.closids and path.parent.name != "mon_groups":
            raise _error(errno.EPERM, path)
        parent = self.root if path in self.closids else path.parent.parent
        for thread, group in self._group_of.items():
            if group == path or path in group.parents:
                self._group_of[thread] = parent
        self.closids.pop(path, None)
        shutil.rmtree(path)
        self._show_tasks()

    def write(self, path: Path, data: bytes) -> None:
        """Each write is a command; what went wrong stands in info/last_cmd_status until the next one."""
        self.calls.append(f"write {path.relative_to(self.root)} {' '.join(data.decode().split())}")
        if not path.exists():
            raise _error(errno.ENOENT, path)
        if len(data) > 4096:  # kernfs_fop_write_iter, atomic_write_len
            raise _error(errno.E2BIG, path)
        writers = {"schemata": self._write_schemata, "tasks": self._write_tasks, "mode": self._write_mode}
        writer = writers.get(path.name)
        if writer is None or path.parent.name == "info":
            raise _error(errno.EACCES, path)
        writer(path.parent, data.decode())

    def _mkdir_control(self, path: Path) -> None:
        """rdtgroup_mkdir_ctrl_mon: a CLOSID, an RMID, and all of the caches that nobody has for itself."""
        most = min(each.closids for each in self.resources.values())
        closid = next((number for number in range(most) if number not in self.closids.values()), None)
        if closid is None:
            self._fail(errno.ENOSPC, path, "Out of CLOSIDs\n")
        self._take_rmid(path)
        values = {}
        for name, each in self.resources.items():
            if isinstance(each, FakeBandwidth):
                values[name] = dict.fromkeys(each.ids, self._default(each))
            else:
                values[name] = {number: self._first_mask(name, each, number, path) for number in each.ids}
        path.mkdir()
        self.closids[path] = closid
        self._fill_group(path)
        self._show(path, values)

    def _take_rmid(self, path: Path) -> None:
        """mkdir_rdt_prepare_rmid_alloc: every group of either kind has one."""
        if self.rmids and 1 + sum(1 for _ in self.root.rglob("tasks")) > self.rmids:
            self._fail(errno.ENOSPC, path, "Out of RMIDs\n")

    def _first_mask(self, name: str, cache: FakeCache, number: int, path: Path) -> int:
        """__init_one_rdt_domain: what is shareable or unused, cut to its first unbroken block (cbm_ensure_valid)."""
        used = mask = cache.shareable
        for group in self.closids:
            for kin in self._kin(name):
                value = self.shown(group)[kin][number]
                used |= value
                if self._mode(group) == "shareable":
                    mask |= value
        mask |= (1 << cache.ways) - 1 & ~used
        if not cache.sparse and mask:
            lowest = mask & -mask
            mask &= ~(mask + lowest)
        if mask.bit_count() < cache.min_bits:
            self._fail(errno.ENOSPC, path, f"No space on {name}:{number}\n")
        return mask

    def _write_schemata(self, group: Path, text: str) -> None:
        """rdtgroup_schemata_write: every line is read before any takes effect."""
        if not text.endswith("\n"):
            raise _error(errno.EINVAL, group)
        self._say("ok\n")
        staged = {name: dict(values) for name, values in self.shown(group).items()}
        for line in text[:-1].split("\n"):
            name, colon, values = line.partition(":")
            name = name.strip()
            if not colon:
                self._fail(errno.EINVAL, group, "Missing ':'\n")
            if not values:
                self._fail(errno.EINVAL, group, f"Missing '{name}' value\n")
            if name not in self.resources:
                self._fail(errno.EINVAL, group, f"Unknown or unsupported resource name '{name}'\n")
            self._stage(group, name, values, staged[name])
            if self._software_controls(name):
                self._show(group, self.shown(group) | {name: staged[name]})  # parse_bw writes mbps_val at once
        self._show(group, staged)

    def _stage(self, group: Path, name: str, text: str, staged: dict[int, int]) -> None:
        """parse_line: `id=value` for each domain, `;` between them."""
        seen = set()
        for pair in text.split(";"):
            if not pair:
                return
            number, equals, value = pair.partition("=")
            if not equals or not number.strip().isdecimal():
                self._fail(errno.EINVAL, group, "Missing '=' or non-numeric domain\n")
            domain = int(number)
            if domain not in self.resources[name].ids:
                raise _error(errno.EINVAL, group)  # the kernel says nothing of it
            if domain in seen and not self._software_controls(name):
                self._fail(errno.EINVAL, group, f"Duplicate domain {domain}\n")
            seen.add(domain)
            each = self.resources[name]
            read = self._read_mask if isinstance(each, FakeCache) else self._read_bandwidth
            staged[domain] = read(group, name, domain, value.strip())

    def _read_mask(self, group: Path, name: str, domain: int, text: str) -> int:
        """cbm_validate and parse_cbm."""
        cache = self.resources[name]
        assert isinstance(cache, FakeCache)
        try:
            mask = int(text, 16)
        except ValueError:
            self._fail(errno.EINVAL, group, f"Non-hex character in the mask {text}\n")
        if (cache.min_bits > 0 and mask == 0) or mask >= 1 << cache.ways:
            self._fail(errno.EINVAL, group, "Mask out of range\n")
        lowest = mask & -mask
        block = mask & ~(mask + lowest)
        if not cache.sparse and block != mask:
            self._fail(errno.EINVAL, group, f"The mask {mask:x} has non-consecutive 1-bits\n")
        if block.bit_count() < cache.min_bits:
            self._fail(errno.EINVAL, group, f"Need at least {cache.min_bits} bits in the mask\n")
        for other in self.closids:
            overlaps = any(self.shown(other)[kin][domain] & mask for kin in self._kin(name))
            if other != group and overlaps and self._mode(other) == "exclusive":
                self._fail(errno.EINVAL, group, "Overlaps with exclusive group\n")
            if other != group and overlaps and self._mode(group) == "exclusive":
                self._fail(errno.EINVAL, group, "Overlaps with other group\n")
        return mask

    def _read_bandwidth(self, group: Path, name: str, _domain: int, text: str) -> int:
        """bw_validate: within the range, rounded up to the step; under mba_MBps any u32."""
        bandwidth = self.resources[name]
        assert isinstance(bandwidth, FakeBandwidth)
        if not text.isdecimal() or int(text) > 0xFFFFFFFF:
            self._fail(errno.EINVAL, group, f"Invalid MB value {text}\n")
        value = int(text)
        if self._software_controls(name):
            return value
        if not bandwidth.minimum <= value <= bandwidth.most:
            told = f"MB value {value} out of range [{bandwidth.minimum},{bandwidth.most}]\n"
            self._fail(errno.EINVAL, group, told)
        return -(-value // bandwidth.step) * bandwidth.step

    def _write_tasks(self, group: Path, text: str) -> None:
        """rdtgroup_tasks_write: ids with commas between; those before the first failure stay moved."""
        self._say("ok\n")
        for piece in text.strip().split(","):
            if not piece.strip().lstrip("-").isdecimal():
                self._fail(errno.EINVAL, group, f"Task list parsing error pid {piece.strip()}\n")
            thread = int(piece)
            if thread < 0:
                self._fail(errno.EINVAL, group, f"Invalid pid {thread}\n")
            if thread not in self._group_of:
                self._fail(errno.ESRCH, group, f"No task {thread}\nError while processing task {thread}\n")
            if group.parent.name == "mon_groups" and self._control_of(thread) != group.parent.parent:
                told = "Can't move task to different control group\n"
                self._fail(errno.EINVAL, group, f"{told}Error while processing task {thread}\n")
            self._group_of[thread] = group
            self._show_tasks()

    def _write_mode(self, group: Path, text: str) -> None:
        """rdtgroup_mode_write: exclusive only where no mask overlaps with another group's or with devices'."""
        self._say("ok\n")
        mode = text.removesuffix("\n")
        if mode not in ("shareable", "exclusive") or not text.endswith("\n"):
            self._fail(errno.EINVAL, group, "Unknown or unsupported mode\n")
        if mode == "exclusive":
            self._test_exclusive(group)
        (group / "mode").write_text(f"{mode}\n")

    def _test_exclusive(self, group: Path) -> None:
        caches = {name: each for name, each in self.resources.items() if isinstance(each, FakeCache)}
        if not caches:
            self._fail(errno.EINVAL, group, "Cannot be exclusive without CAT/CDP\n")
        for name, cache in caches.items():
            for number, mask in self.shown(group)[name].items():
                others = (
                    self.shown(other)[kin][number]
                    for other in self.closids
                    for kin in self._kin(name)
                    if other != group
                )
                if mask & cache.shareable or any(mask & other for other in others):
                    self._fail(errno.EINVAL, group, "Schemata overlaps\n")

    # What the files show.

    def shown(self, group: Path) -> dict[str, dict[int, int]]:
        """Read a group's schemata file by itself, so that the fake does not rest on what it tests."""
        found: dict[str, dict[int, int]] = {}
        for line in (group / "schemata").read_text().splitlines():
            name, values = line.strip().split(":")
            base = 16 if name.startswith("L") else 10
            found[name] = {int(pair.split("=")[0]): int(pair.split("=")[1], base) for pair in values.split(";")}
        return found

    def _show(self, group: Path, values: dict[str, dict[int, int]]) -> None:
        """show_doms: names to the right of a column of one width; masks hexadecimal, bandwidth decimal."""
        width = max(map(len, self.resources))
        text = ""
        for name in self.resources:
            form = "x" if isinstance(self.resources[name], FakeCache) else "4d"
            pairs = ";".join(f"{number}={value:{form}}" for number, value in sorted(values[name].items()))
            text += f"{name:>{width}}:{pairs}\n"
        (group / "schemata").write_text(text)

    def _show_tasks(self) -> None:
        """show_rdt_tasks: a control group shows those of its monitoring groups too."""
        for file in self.root.rglob("tasks"):
            threads = [
                thread
                for thread, group in self._group_of.items()
                if group == file.parent or (file.parent in self.closids and self._control_of(thread) == file.parent)
            ]
            file.write_text("".join(f"{thread}\n" for thread in sorted(threads)))

    def _fill_group(self, path: Path, *, control: bool = True) -> None:
        files = {"tasks": "", "cpus": "0\n" if path != self.root else "3\n", "cpus_list": "\n"}
        if control:
            files |= {"schemata": "", "mode": "shareable\n", "size": ""}
        if control and self.software_controlled:
            files["mba_MBps_event"] = "mbm_local_bytes\n"
        for name, text in files.items():
            (path / name).write_text(text)
        if self.rmids:
            caches = next((each.ids for name, each in self.resources.items() if name[:2] in ("L3", "MB")), (0,))
            for number in caches:
                data = path / "mon_data" / f"mon_L3_{number:02}"
                data.mkdir(parents=True)
                for event in ("llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"):
                    (data / event).write_text("0\n")
            if control:
                (path / "mon_groups").mkdir()
        self._show_tasks()

    def _fill_info(self) -> None:
        """res_common_files: the files of info that this program, goresctrl and runc read."""
        for name, each in self.resources.items():
            if isinstance(each, FakeCache):
                usage = ";".join(f"{number}={'S' * each.ways}" for number in each.ids)
                files = {
                    "cbm_mask": f"{(1 << each.ways) - 1:x}",
                    "min_cbm_bits": each.min_bits,
                    "shareable_bits": f"{each.shareable:x}",
                    "bit_usage": usage,
                    "sparse_masks": int(each.sparse),
                }
            else:
                files = {"min_bandwidth": each.minimum, "bandwidth_gran": each.step, "delay_linear": 1}
            self._fill(self.root / "info" / name, {"num_closids": each.closids, **files})
        if self.rmids:
            events = "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes"
            self._fill(self.root / "info" / "L3_MON", {"num_rmids": self.rmids, "mon_features": events})
        (self.root / "info").mkdir(exist_ok=True)

    @staticmethod
    def _fill(folder: Path, files: dict[str, object]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (folder / name).write_text(f"{value}\n")

    def _default(self, each: FakeCache | FakeBandwidth) -> int:
        """resctrl_get_default_ctrl; MBA_MAX_MBPS under the software controller."""
        if isinstance(each, FakeCache):
            return (1 << each.ways) - 1
        return MAX_MIBPS if self.software_controlled and each is self.resources.get("MB") else each.most

    def _software_controls(self, name: str) -> bool:
        return self.software_controlled and name == "MB"

    def _kin(self, name: str) -> list[str]:
        """Resources of one piece of hardware: with CDP, L3CODE and L3DATA (resctrl_peer_type)."""
        return [each for each in self.resources if each[:2] == name[:2]]

    def _mode(self, group: Path) -> str:
        return (group / "mode").read_text().strip()

    def _control_of(self, thread: int) -> Path:
        group = self._group_of[thread]
        return group if group in self.closids else group.parent.parent

    def _say(self, status: str) -> None:
        (self.root / "info" / "last_cmd_status").write_text(status)

    def _fail(self, number: int, path: Path, status: str) -> NoReturn:
        self._say(status)
        raise _error(number, path)


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))
