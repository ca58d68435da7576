# Picks the slot: grub.cfg in U-Boot's shell, on the same files in the same form (tools/device/os-boot).
#
# State lies on this partition in os/: grubenv and, for the case that it is damaged, grubenv.copy
#   ORDER   slots, preferred first        A_OK, B_OK    1: the slot may be booted
#   A_TRY, B_TRY   boots since the slot was last marked good; at 3 the other slot has its turn
# and argsenv, a person's own kernel arguments: they are used on a slot's first try only. "env import -t" takes GRUB's block as
# it is: its first line and what fills it up are comments.
#
# What a slot boots it has on its kernel partition: vmlinuz, initramfs, device trees in dtb/, and slot.env with its arguments.
#
# There are no loops over numbers and nothing is saved with saveenv: stock configurations of boards have neither setexpr nor an
# environment on a medium. kernel_addr_r is scratch memory until the kernel is there.

test -n "${distro_bootpart}" || setenv distro_bootpart 1
# The addresses of the Raspberry Pi's U-Boot leave 37 MiB for a kernel.
if test "${board}" = rpi; then setenv fdt_addr_r 0x03f00000; setenv ramdisk_addr_r 0x04000000; fi
setenv os_disk "${devtype} ${devnum}"
setenv os_boot_part "${os_disk}:${distro_bootpart}"

# A block has 1024 bytes, of which the first are "# GR".
mw.l ${ramdisk_addr_r} 0x52472023
setenv ORDER
for os_file in os/grubenv os/grubenv.copy; do
    if test -z "${ORDER}"; then
        if load ${os_boot_part} ${kernel_addr_r} ${os_file}; then
            if test "${filesize}" = 400 && cmp.l ${kernel_addr_r} ${ramdisk_addr_r} 1; then
                env import -t ${kernel_addr_r} 0x400 ORDER A_OK A_TRY B_OK B_TRY
                setenv os_env ${os_file}
            fi
        fi
    fi
done
setenv os_user_args
if load ${os_boot_part} ${kernel_addr_r} os/argsenv; then
    if test "${filesize}" = 400 && cmp.l ${kernel_addr_r} ${ramdisk_addr_r} 1; then
        env import -t ${kernel_addr_r} 0x400 os_user_args
    fi
fi
if test -z "${ORDER}"; then
    setenv ORDER "A B"; setenv A_OK 1; setenv A_TRY 0; setenv B_OK 0; setenv B_TRY 0; setenv os_env os/grubenv
fi

setenv os_slot
for s in ${ORDER}; do
    if test -z "${os_slot}" -a "${s}" = A -a "${A_OK}" = 1; then
        if   test -z "${A_TRY}" -o "${A_TRY}" = 0; then setenv A_TRY 1; setenv os_slot A
        elif test "${A_TRY}" = 1; then setenv A_TRY 2; setenv os_slot A; setenv os_user_args
        elif test "${A_TRY}" = 2; then setenv A_TRY 3; setenv os_slot A; setenv os_user_args
        fi
    fi
    if test -z "${os_slot}" -a "${s}" = B -a "${B_OK}" = 1; then
        if   test -z "${B_TRY}" -o "${B_TRY}" = 0; then setenv B_TRY 1; setenv os_slot B
        elif test "${B_TRY}" = 1; then setenv B_TRY 2; setenv os_slot B; setenv os_user_args
        elif test "${B_TRY}" = 2; then setenv B_TRY 3; setenv os_slot B; setenv os_user_args
        fi
    fi
done

if test -n "${os_slot}"; then
    # Saved before the jump: a kernel that hangs has used up its try. Behind GRUB's first line of 25 bytes, in place: the file
    # keeps its size and its clusters, and one sector holds all of it.
    mw.b ${kernel_addr_r} 0x23 0x400
    env export -t ${kernel_addr_r} ORDER A_OK A_TRY B_OK B_TRY
    fatwrite ${os_boot_part} ${kernel_addr_r} ${os_env} 0x3e7 0x19
    setenv os_slots ${os_slot}
    setenv os_rescue
else
    # Both slots failed three times each: network and ssh only, counters as they are.
    setenv os_slots "${ORDER}"
    setenv os_user_args
    setenv os_rescue systemd.unit=os-rescue.target
fi
echo "OS: order ${ORDER}, A ok ${A_OK} try ${A_TRY}, B ok ${B_OK} try ${B_TRY}: slot ${os_slots} ${os_rescue}"

part uuid ${os_boot_part} os_boot
for os_slot in ${os_slots}; do
    if test "${os_slot}" = A; then setenv os_part ${os_disk}:2; else setenv os_part ${os_disk}:3; fi
    setenv os_slot_args
    if load ${os_part} ${kernel_addr_r} slot.env; then
        env import -t ${kernel_addr_r} ${filesize} os_slot_args
        # Of two copies of one disk, which have everything in common, this one has these tries.
        setenv bootargs "os.slot=${os_slot} rauc.slot=${os_slot} os.boot=${os_boot} os.tries=${A_TRY},${B_TRY} ${os_user_args} ${os_rescue} ${os_slot_args}"
        echo "OS: ${bootargs}"
        # The slot's own device tree where it has one, else the one that the firmware left.
        setenv os_dtb ${fdt_addr}
        test -n "${os_dtb}" || setenv os_dtb ${fdtcontroladdr}
        if test -n "${fdtfile}"; then
            if load ${os_part} ${fdt_addr_r} dtb/${fdtfile}; then setenv os_dtb ${fdt_addr_r}; fi
        fi
        if load ${os_part} ${kernel_addr_r} vmlinuz; then
            if load ${os_part} ${ramdisk_addr_r} initramfs; then
                # 64-bit boards have the first, 32-bit boards the second. Only what cannot be loaded comes back.
                booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${os_dtb}
                bootz ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${os_dtb}
            fi
        fi
    fi
    echo "OS: slot ${os_slot} cannot be started"
done
echo "OS: restarting in 5 seconds"
sleep 5
reset
