mod devices; mod kernel; mod probes;
use std::sync::Arc;
fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();
    let t=std::time::Instant::now();
    let btf=Arc::new(kernel::btf::Btf::vmlinux()?);
    let th=std::thread::spawn(kernel::symbols::Symbols::load);
    let (p,_)=probes::Probes::attach(&btf, Default::default(), &[], move || th.join().unwrap())?;
    println!("{:?}", t.elapsed());
    for a in &p.attached { println!("{a:?}"); }
    for a in &p.missing { println!("{a:?}"); }
    Ok(())
}
