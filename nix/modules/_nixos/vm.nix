# SPDX-License-Identifier: Apache-2.0
# Copyright The NixFleet Authors.
#
# What mkHost adds with isVm: the hardware of a QEMU machine. A host's own modules have the
# last word.
{ lib, ... }:
{
  _class = "nixos";

  boot.initrd.availableKernelModules = [
    "virtio_blk"
    "virtio_net"
    "virtio_pci"
    "virtio_scsi"
    "ahci"
    "sd_mod"
    "sr_mod"
  ];
  boot.loader.grub.device = lib.mkDefault "/dev/vda";
  fileSystems."/" = {
    device = lib.mkDefault "/dev/disk/by-label/nixos";
    fsType = lib.mkDefault "ext4";
  };

  networking.useDHCP = lib.mkDefault true;
  services.qemuGuest.enable = lib.mkDefault true;
  services.spice-vdagentd.enable = lib.mkDefault true;
  # There is no GPU to render with.
  environment.variables.LIBGL_ALWAYS_SOFTWARE = lib.mkDefault "1";
}
