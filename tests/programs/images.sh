#!/bin/sh
# Real programs as images: each a closure of Debian's packages, unpacked and written as `docker save` does. All share their first layer.
#
#   sh tests/programs/images.sh DIRECTORY [IMAGE...]      makes DIRECTORY/IMAGE.tar unless it is there [nginx, redis, postgres, prometheus]
set -eu
mkdir -p "${1:?"usage: images.sh DIRECTORY [IMAGE...]"}"
to=$(readlink -f "$1"); shift
cd "$(dirname "$0")"
work=$(mktemp -d /var/tmp/coracle-images-XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

unpack() { # unpack DIRECTORY PACKAGE...: these and all that they need, as if the machine had none
    into=$work/$1 packages=$work/$1.packages; shift
    mkdir -p "$packages/partial" "$into/usr/bin" "$into/usr/sbin" "$into/usr/lib" "$into/usr/lib64"
    for name in bin sbin lib lib64; do [ -e "$into/$name" ] || ln -s "usr/$name" "$into/$name"; done
    : >"$work/status"
    apt-get -o Dir::State::status="$work/status" -o Dir::Cache::archives="$packages" -o APT::Install-Recommends=0 -o APT::Sandbox::User=root \
        --download-only -qq -y install "$@" >/dev/null
    # A link to a directory stays one when a package has that directory: /lib is /usr/lib.
    for package in "$packages"/*.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x -C "$into" --keep-directory-symlink; done
    rm -rf "$packages"
}
bare() { # bare DIRECTORY: without what no program reads
    rm -rf "${1:?}/usr/share/doc" "$1/usr/share/man" "$1/usr/share/locale" "$1/usr/share/info" "$1/usr/share/lintian" "$1/var/cache"
}
base() { # base DIRECTORY: what every image begins with
    unpack "$1" base-files base-passwd dash coreutils sed grep libc-bin netbase
    root=$work/$1
    bare "$root"
    cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
    cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
    printf 'postgres:x:999:999::/var/lib/postgresql:/bin/sh\nredis:x:998:998::/data:/bin/sh\n' >>"$root/etc/passwd"
    printf 'postgres:x:999:\nredis:x:998:\n' >>"$root/etc/group"
    [ -e "$root/bin/sh" ] || ln -s dash "$root/bin/sh"
}
image() { # image NAME PACKAGE CONFIG: the image NAME:debian
    [ ! -e "$to/$1.tar" ] || return 0
    [ -d "$work/base" ] || base base
    # What the base has by this package is not in it twice.
    cp -a "$work/base" "$work/$1"
    unpack "$1" "$2"
    bare "$work/$1"
    [ ! -e "$1.entrypoint" ] || install -D -m 755 "$1.entrypoint" "$work/$1/usr/local/bin/entrypoint"
    python3 image.py "$to/$1.tar.part" "$1:debian" "$3" "$work/base" "$work/$1"
    mv "$to/$1.tar.part" "$to/$1.tar"
    rm -rf "${work:?}/$1"
}

for name in ${*:-nginx redis postgres prometheus}; do
    case "$name" in
    nginx) image nginx nginx-light '{"Cmd": ["nginx", "-g", "daemon off;"], "StopSignal": "SIGQUIT", "ExposedPorts": {"80/tcp": {}}}' ;;
    redis) image redis redis-server '{"Cmd": ["redis-server"], "User": "redis", "WorkingDir": "/data", "Volumes": {"/data": {}}}' ;;
    postgres)
        package=$(apt-cache depends postgresql | sed -n 's/^ *Depends: \(postgresql-[0-9]*\)$/\1/p')
        image postgres "$package" "{\"Entrypoint\": [\"entrypoint\"], \"Cmd\": [\"postgres\"], \"StopSignal\": \"SIGINT\",
            \"Env\": [\"PATH=/usr/local/bin:/usr/bin:/bin:/usr/lib/postgresql/${package#postgresql-}/bin\", \"PGDATA=/var/lib/postgresql/data\"]}"
        ;;
    prometheus) image prometheus prometheus '{"Cmd": ["prometheus"], "User": "nobody", "WorkingDir": "/prometheus"}' ;;
    *) echo "images.sh: no image $name" >&2; exit 2 ;;
    esac
done
