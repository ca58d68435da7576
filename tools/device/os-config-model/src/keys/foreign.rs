//! Keys of other systems.

/// Keys of balenaOS that mean nothing here, and why. They are accepted, so that an existing file works.
pub static WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("/uuid", "the device generates its own id (`os status`)"),
    ("/deviceType", "an image is built for one machine"),
    ("/version", "written by balena's tools"),
    ("/apiEndpoint", CLOUD),
    ("/apiKey", CLOUD),
    ("/deviceApiKey", CLOUD),
    ("/deviceApiKeys", CLOUD),
    ("/applicationId", CLOUD),
    ("/applicationName", CLOUD),
    ("/deviceId", CLOUD),
    ("/registered_at", CLOUD),
    ("/userId", CLOUD),
    ("/username", CLOUD),
    ("/initialDeviceName", CLOUD),
    ("/listenPort", CLOUD),
    ("/vpnEndpoint", CLOUD),
    ("/vpnPort", CLOUD),
    ("/registryEndpoint", CLOUD),
    ("/deltaEndpoint", CLOUD),
    ("/logsEndpoint", CLOUD),
    ("/mixpanelToken", CLOUD),
    ("/appUpdatePollInterval", CLOUD),
    ("/bootstrapRetryDelay", CLOUD),
    ("/apiTimeout", CLOUD),
    ("/localMode", CLOUD),
    ("/debug", "there are no shell scripts to trace"),
    ("/installer", "there is no flasher image: the disk image is written directly"),
    ("/os/fan", "no supported board has fan profiles"),
    ("/os/power", "no supported board has power modes"),
    ("/os/kernel/extraFirmwareVol", "firmware is part of the image, where it is verified"),
];

/// Those of [`WITHOUT_EFFECT`] that are secrets of another system: never shown.
pub static FOREIGN_SECRETS: &[&str] = &["/apiKey", "/deviceApiKey", "/deviceApiKeys", "/mixpanelToken"];

const CLOUD: &str = "for balena's cloud, which this device does not use";
