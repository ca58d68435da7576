//! Every device applet in one binary, chosen by the name it is called by.
//!
//! One binary takes less flash than several that each carry the same libraries. This file only dispatches.

use clap::Parser;
use std::path::Path;
use std::process::ExitCode;

/// Names that this binary answers to; `make install` makes a link for each.
const APPLETS: &[&str] =
    &["os", "os-config", "os-hostname", "os-network", "os-slots", "os-splash", "os-update", "os-apps", "os-init"];

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.as_str() {
        // As PID 1 of the initramfs the kernel calls it /init.
        "os-init" | "init" => os_init::boot::main(),
        "os" => match os_cli::parse(std::env::args_os()) {
            Ok(args) => run(os_cli::main(args)),
            Err(code) => code,
        },
        "os-config" => run(os_config::cli::main(os_config::cli::Args::parse())),
        "os-hostname" => {
            let args = os_hostname::Args::parse();
            run(async { os_hostname::main(args).await.map(|()| ExitCode::SUCCESS) })
        }
        "os-network" => run(os_config::follow::main(os_config::follow::Args::parse())),
        "os-slots" => {
            let args = os_boot::applet::Args::parse();
            run(async { os_boot::applet::main(&args).map(|()| ExitCode::SUCCESS) })
        }
        "os-splash" => {
            let args = os_splash::Args::parse();
            run(async { os_splash::main(&args).map(|()| ExitCode::SUCCESS) })
        }
        "os-update" => run(os_update::main(os_update::Args::parse_from(os_update::arguments(std::env::args_os())))),
        "os-apps" => run(os_apps::main(os_apps::Args::parse())),
        other => {
            eprintln!("'{other}' is no applet of this binary; call it by one of these names: {}", APPLETS.join(" "));
            ExitCode::from(2)
        }
    }
}

/// Runs an applet on one thread: all of them wait for other programs, none computes.
fn run(applet: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(applet));
    result.unwrap_or_else(|err| {
        os_sys::log::error(&format!("{err:#}"));
        ExitCode::from(1)
    })
}
