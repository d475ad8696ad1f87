# Makes and mounts what volumes can lie on: a whole disk, a partition, a logical volume, a device-mapper target.
set -e

filesystem() { # DEVICE MOUNT
	[ -n "$(blkid -s TYPE -o value "$1")" ] || mkfs.ext4 -q "$1"
	mkdir -p "$2"
	mount "$1" "$2"
}

filesystem /dev/vdb /srv/whole

[ -b /dev/vdc1 ] || printf ',400M\n,\n' | sfdisk --quiet --label gpt /dev/vdc
filesystem /dev/vdc1 /srv/partition

vgs volumes > /dev/null 2>&1 || {
	vgcreate --quiet volumes /dev/vdd
	lvcreate --quiet --yes --size 400M --name data volumes
	lvcreate --quiet --yes --size 100M --name raw volumes
}
vgchange --quiet --activate y volumes
filesystem /dev/volumes/data /srv/logical

dmsetup create linear --table "0 $(($(blockdev --getsz /dev/vde) - 2048)) linear /dev/vde 2048"
dmsetup mknodes linear
filesystem /dev/mapper/linear /srv/linear
