//! The files of `deploy/` hold what they promise: their configurations load, and the image and the unit run the same commands.

use std::fs;
use std::path::Path;

use rtm_gateway::config::load;

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)).unwrap()
}

/// The block of a ConfigMap's `gateway.toml`, its indentation taken away.
fn configuration(manifest: &str) -> String {
    let after = manifest.split_once("  gateway.toml: |\n").expect("the manifest has a gateway.toml").1;
    let block = after.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    block.map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or_default())).collect()
}

#[test]
fn the_configurations_of_the_manifests_load_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["gateway".to_owned()]).unwrap();
    let mounted = [
        ("/run/tls/tls.crt", made.cert.pem()),
        ("/run/tls/tls.key", made.signing_key.serialize_pem()),
        ("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt", made.cert.pem()),
        ("/var/run/secrets/kubernetes.io/serviceaccount/token", "token".to_owned()),
        ("/run/secrets/vendor/api-key", "key".to_owned()),
        ("/run/secrets/vendor/api-secret", "secret".to_owned()),
    ];
    for name in ["kubernetes/shared.yaml", "kubernetes/sidecar.yaml"] {
        let mut text = configuration(&file(name));
        for (n, (path, content)) in mounted.iter().enumerate() {
            let here = dir.path().join(format!("{name}-{n}").replace('/', "-"));
            fs::write(&here, content).unwrap();
            // As `defaultMode` of the manifests has it.
            fs::set_permissions(&here, std::os::unix::fs::PermissionsExt::from_mode(0o440)).unwrap();
            text = text.replace(path, here.to_str().unwrap());
        }
        let loaded = load::from_text(&text, Path::new(name)).unwrap();
        assert_eq!(loaded.warnings, [], "{name}");
        assert_eq!((loaded.config.apps.len(), loaded.config.clients.len()), (1, 1), "{name}");
    }
}

#[test]
fn every_way_to_run_it_gives_it_time_to_stop_and_no_rights() {
    let unit = file("systemd/rtm-gateway.service");
    let grace = rtm_gateway::config::Server::default().shutdown_grace.as_secs();
    let seconds = |text: &str, key: &str| -> u64 {
        let value = text.split_once(key).expect("the key is there").1;
        value.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    assert!(seconds(&unit, "TimeoutStopSec=") > grace);
    assert!(unit.contains("NoNewPrivileges=yes") && unit.contains("LimitCORE=0"));
    for name in ["kubernetes/shared.yaml", "kubernetes/sidecar.yaml"] {
        let manifest = file(name);
        assert!(seconds(&manifest, "terminationGracePeriodSeconds: ") > grace, "{name}");
        for line in ["runAsNonRoot: true", "readOnlyRootFilesystem: true", "drop: [\"ALL\"]", "replicas: 1"] {
            assert!(manifest.contains(line), "{name}: {line}");
        }
    }
}
