#!/usr/bin/env bash
# tests/ktls/run.sh KERNEL UNIT RELAY: the tests of media over TLS under a kernel that does TLS, in a virtual machine.
# KERNEL is a folder with Debian's linux-image-cloud-amd64 and busybox-static unpacked (`./dev test` makes it); UNIT and
# RELAY are the test programs of strait-relay. All that the machine has is in its memory, and it reaches nothing.
set -euo pipefail

readonly KERNEL=$1 UNIT=$2 RELAY=$3
# Emulated, which takes a minute or two and works wherever the tests do: a KVM inside of another often does not.
readonly MOST_SECONDS=300

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
modules=$(echo "$KERNEL"/lib/modules/*)
version=${modules##*/}

mkdir -p "$root"/{bin,sbin,proc,sys,dev,tmp,root,etc,"lib/modules/$version"}
cp "$KERNEL/bin/busybox" "$root/bin/"
for name in sh mount ip modprobe depmod poweroff; do ln -s busybox "$root/bin/$name"; done
ln -s ../bin/busybox "$root/sbin/modprobe"
for folder in crypto arch/x86/crypto lib/crypto net/tls; do
    mkdir -p "$root/lib/modules/$version/kernel/$folder"
    cp "$modules/kernel/$folder"/*.ko "$root/lib/modules/$version/kernel/$folder/"
done
# The programs, and what they are linked with.
strip -o "$root/bin/unit" "$UNIT"
strip -o "$root/bin/relay" "$RELAY"
cp "$(command -v openssl)" "$root/bin/"
ldd "$root"/bin/{unit,relay,openssl} | grep -o '/[^ ]*' | grep -v ':$' | sort -u |
    while read -r library; do
        mkdir -p "$root${library%/*}"
        cp -L "$library" "$root$library"
    done

cat >"$root/init" <<'INIT'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
ip link set lo up
depmod
for module in tls aesni_intel gcm ctr chacha_x86_64 poly1305_x86_64 chacha20poly1305; do modprobe $module; done
export STRAIT_EXPECT_KTLS=1 PATH=/bin HOME=/tmp OPENSSL_CONF=/dev/null
# Not those of what strangers may take: they have seconds for hundreds of connections, and nothing that the kernel does.
unit --include-ignored --test-threads 2 framed::kernel framed::tests::by_kernel framed::tests::a_slow_reader </dev/null &&
    relay --test-threads 2 framed:: turn:: --skip strangers </dev/null &&
    echo "all of it passed"
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | "$KERNEL/bin/busybox" cpio -o -H newc) 2>/dev/null | gzip -1 >"$root.gz"
trap 'rm -rf "$root" "$root.gz"' EXIT

timeout "$MOST_SECONDS" qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 1536 -nodefaults -display none \
    -serial stdio -no-reboot -kernel "$KERNEL"/boot/vmlinuz-* -initrd "$root.gz" \
    -append "console=ttyS0 quiet panic=-1 random.trust_cpu=on" </dev/null | tr -d '\r' | tee "$root/log"
grep -qx "all of it passed" "$root/log"
